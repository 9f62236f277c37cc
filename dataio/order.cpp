#include "dataio/order.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "base/philox.h"

namespace millrace {

namespace {

constexpr std::array<std::string_view, 3> kNames = {"sequential", "shuffled", "blocks"};

// Keys of their own, so that the windows' permutations have nothing in common with the blocks'.
constexpr std::uint64_t kShortBlockKey = 1, kWindowKey = 2;

}  // namespace

std::string_view name_of(Order order) { return kNames[static_cast<std::size_t>(order)]; }

Order parse_order(std::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) {
    throw InputError("order: got '{}', expected sequential, shuffled or blocks", name);
  }
  return static_cast<Order>(found - kNames.begin());
}

EpochOrder::EpochOrder(std::int64_t samples, OrderOptions options, std::uint64_t seed, std::int64_t epoch)
    : samples_(samples), options_(options), seed_(seed), epoch_(epoch) {
  if (options.block_size < 1 || options.window < 1) {
    throw InputError("order: got blocks of {} and a window of {} blocks, expected at least 1 of each",
                     options.block_size, options.window);
  }
  const Permutation all(samples, seed, epoch);  // checks samples
  if (options.kind == Order::shuffled) {
    permutation_ = all;
  }
  if (options.kind != Order::blocks) {
    return;
  }
  options_.block_size = std::min(options.block_size, samples);
  const std::int64_t blocks = samples / options_.block_size;
  window_samples_ = options_.block_size * std::min(options.window, blocks + 1);
  short_size_ = samples % options_.block_size;
  const Permutation place(blocks + 1, mix(seed, kShortBlockKey), epoch);
  short_start_ = place(0) * options_.block_size;
  permutation_.emplace(blocks, seed, epoch);
}

/// The index at a position once blocks are permuted, before samples are mixed within their window.
std::int64_t EpochOrder::in_blocks(std::int64_t position) const {
  const std::int64_t behind = position - short_start_;
  if (behind >= 0 && behind < short_size_) {
    return samples_ - short_size_ + behind;
  }
  if (behind >= 0) {
    position -= short_size_;
  }
  const std::int64_t block = position / options_.block_size;
  return (*permutation_)(block)*options_.block_size + position % options_.block_size;
}

void EpochOrder::indices(std::int64_t start, std::span<std::int64_t> indices) const {
  const auto count = static_cast<std::int64_t>(indices.size());
  if (options_.kind != Order::blocks) {
    for (std::int64_t i = 0; i < count; ++i) {
      indices[static_cast<std::size_t>(i)] = permutation_ ? (*permutation_)(start + i) : start + i;
    }
    return;
  }
  for (std::int64_t done = 0; done < count;) {
    const std::int64_t window = (start + done) / window_samples_, begin = window * window_samples_;
    const std::int64_t size = std::min(window_samples_, samples_ - begin);
    const Permutation within(size, mix(mix(seed_, kWindowKey), static_cast<std::uint64_t>(window)), epoch_);
    for (; done < count && start + done < begin + size; ++done) {
      indices[static_cast<std::size_t>(done)] = in_blocks(begin + within(start + done - begin));
    }
  }
}

Mixing measure_mixing(std::int64_t samples, const OrderOptions& options, std::uint64_t seed) {
  constexpr std::int64_t kRun = 1024, kMostRuns = 1024;
  const EpochOrder order(samples, options, seed, 0);
  std::vector<std::int64_t> indices(static_cast<std::size_t>(std::min(samples, kRun)));
  const std::int64_t runs = std::min(samples / std::ssize(indices), kMostRuns);
  Mixing mixing;
  for (std::int64_t run = 0; run < runs; ++run) {
    const std::int64_t start = samples / runs * run;
    order.indices(start, indices);
    for (std::size_t i = 0; i < indices.size(); ++i) {
      mixing.displacement += std::abs(static_cast<double>(indices[i] - start) - static_cast<double>(i));
      mixing.adjacent += i > 0 && std::abs(indices[i] - indices[i - 1]) == 1;
    }
  }
  const auto positions = static_cast<double>(runs * std::ssize(indices));
  mixing.displacement /= positions * static_cast<double>(samples);
  mixing.adjacent /= std::max(positions - static_cast<double>(runs), 1.0);
  return mixing;
}

}  // namespace millrace
