#include "pipeline/training/peers.h"

#include <algorithm>

#include "distributed/rendezvous/rendezvous.h"

namespace millrace {

void Peers::set_step(std::int64_t step) {
  if (group_) {
    group_->rendezvous().set_step(step);
  }
}

std::vector<double> Peers::all(std::span<const double> mine) {
  if (size() == 1) {
    return {mine.begin(), mine.end()};
  }
  Tensor sent = empty({std::ssize(mine)}, {.dtype = DType::f64});
  Tensor received = empty({size() * std::ssize(mine)}, {.dtype = DType::f64});
  std::ranges::copy(mine, sent.data<double>());
  group_->communicator()->all_gather(sent, received);
  return {received.data<double>(), received.data<double>() + received.numel()};
}

std::vector<double> Peers::all_shards(std::span<const double> mine) {
  if (size() == 1) {
    return {mine.begin(), mine.end()};
  }
  const std::size_t most = static_cast<std::size_t>((shards_ + size() - 1) / size());
  std::vector<double> padded(mine.begin(), mine.end());
  padded.resize(most);
  const std::vector<double> rows = all(padded);
  std::vector<double> every;
  for (int r = 0; r < size(); ++r) {
    const auto row = rows.begin() + r * static_cast<std::ptrdiff_t>(most);
    every.insert(every.end(), row, row + shards_of(r, size(), shards_).count);
  }
  return every;
}

std::vector<std::string> Peers::texts(std::string_view about, const std::string& mine) {
  return size() == 1 ? std::vector{mine} : group_->rendezvous().all_gather(about, mine);
}

void Peers::sum(std::span<std::int64_t> counts) {
  const std::vector<double> numbers(counts.begin(), counts.end());  // exact up to 2^53
  const std::vector<double> rows = all(numbers);
  std::ranges::fill(counts, 0);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    counts[i % counts.size()] += static_cast<std::int64_t>(rows[i]);
  }
}

}  // namespace millrace
