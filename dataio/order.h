#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "dataio/order_options.h"
#include "dataio/permutation.h"

namespace millrace {

/// The order of one epoch: a bijection of [0, samples), a function of (seed, epoch) in O(1) memory.
///
/// Blocks: the short block at the data set's end gets a random place, the whole ones are permuted around it,
/// and each run of block_size * window positions is permuted in itself. kPermutationVersion names all of
/// this arithmetic.
class EpochOrder {
 public:
  /// @throws InputError unless 1 <= samples <= 2^62 and block_size, window >= 1.
  EpochOrder(std::int64_t samples, OrderOptions options, std::uint64_t seed, std::int64_t epoch);

  /// Writes the indices at the positions from `start` on, all of them in [0, samples).
  void indices(std::int64_t start, std::span<std::int64_t> indices) const;

 private:
  std::int64_t in_blocks(std::int64_t position) const;

  std::int64_t samples_;
  OrderOptions options_;
  std::uint64_t seed_;
  std::int64_t epoch_;
  std::optional<Permutation> permutation_;  // of all samples, or of the whole blocks
  std::int64_t window_samples_ = 0, short_start_ = 0, short_size_ = 0;  // of Order::blocks
};

/// How well an order mixes: what random permutations have stands beside it.
struct Mixing {
  double displacement = 0;  ///< Mean distance of a sample from its place, in parts of the data set; 1/3.
  double adjacent = 0;      ///< Share of pairs in a row that are neighbours in the data set; 2 / samples.
};
/// Of epoch 0; of large data sets 1024 runs of 1024 positions. @throws InputError as EpochOrder.
Mixing measure_mixing(std::int64_t samples, const OrderOptions& options, std::uint64_t seed);

}  // namespace millrace
