#include "dataio/subset.h"

#include <cmath>
#include <map>

#include "base/error.h"
#include "base/hash.h"
#include "base/philox.h"
#include "dataio/permutation.h"

namespace millrace {

std::uint64_t Subset::fingerprint(int version) const {
  Hash hash;
  hash.add(static_cast<std::int64_t>(whole_->fingerprint(version))).add(size());
  for (const std::int64_t index : indices_) {
    hash.add(index);
  }
  return hash.value();
}

void Subset::will_need(std::span<const std::int64_t> indices) const {
  std::vector<std::int64_t> of_whole_indices;
  of_whole_indices.reserve(indices.size());
  for (const std::int64_t index : indices) {
    of_whole_indices.push_back(of_whole(index));
  }
  whole_->will_need(of_whole_indices);
}

ValidationSplit split_validation(std::shared_ptr<const Dataset> whole, double fraction, std::uint64_t seed) {
  if (!(fraction > 0 && fraction < 1)) {
    throw InputError("validation split: got the fraction {}, expected more than 0 and less than 1", fraction);
  }
  constexpr std::uint64_t kStream = 0x76616C6964617465;  // keys its random numbers
  const std::int64_t size = whole->size();
  std::map<std::int64_t, std::vector<std::int64_t>> classes;
  for (std::int64_t i = 0; i < size; ++i) {
    classes[whole->label(i)].push_back(i);
  }
  std::vector<bool> held_out(static_cast<std::size_t>(size), false);
  for (const auto& [label, members] : classes) {
    const auto count = static_cast<std::int64_t>(members.size());
    const auto part = static_cast<std::int64_t>(std::floor(fraction * static_cast<double>(count) + 0.5));
    const Permutation drawn(count, mix(kStream, seed), label);
    for (std::int64_t i = 0; i < part; ++i) {
      held_out[static_cast<std::size_t>(members[static_cast<std::size_t>(drawn(i))])] = true;
    }
  }
  std::vector<std::int64_t> train, validation;
  for (std::int64_t i = 0; i < size; ++i) {
    (held_out[static_cast<std::size_t>(i)] ? validation : train).push_back(i);
  }
  if (train.empty() || validation.empty()) {
    throw InputError(
        "validation split: a fraction of {} of {} samples in {} classes leaves {} to train on and {} to "
        "validate on; expected some in both",
        fraction, size, classes.size(), train.size(), validation.size());
  }
  return {std::make_unique<Subset>(whole, std::move(train)),
          std::make_unique<Subset>(whole, std::move(validation))};
}

}  // namespace millrace
