#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "dataio/dataset.h"
#include "dataio/order_options.h"

namespace millrace {

/// How far a consumer has come, and what the order that it follows depends on. Says nothing of threads,
/// slabs, shards or ranks: any number of them goes on with exactly the samples that are left.
struct LoaderState {
  static constexpr std::size_t kBytes = 88;

  std::int64_t epoch = 0;
  std::int64_t step = 0;  ///< Batches of the epoch that were taken; all of them at its end.
  int permutation_version = kPermutationVersion;
  OrderOptions order;
  std::uint64_t seed = 0;
  std::int64_t batch_size = 0, samples = 0;
  int fingerprint_version = Dataset::kFingerprintVersion;
  std::uint64_t fingerprint = 0;  ///< Of the data set.
  bool operator==(const LoaderState&) const = default;

  /// A fixed form, little-endian: "MLRSTAT" and the digit of the fingerprint's version; version and kind of
  /// order, 32 bits each; then 64 bits each of block size, window, seed, epoch, step, batch size, samples,
  /// fingerprint, and the Hash of what stands before.
  std::array<std::byte, kBytes> to_bytes() const;
  /// @throws InputError when these are not the bytes of a state, or damaged.
  static LoaderState from_bytes(std::span<const std::byte> bytes);
  /// @throws InputError naming the first value that differs, and both, when `other` follows another order.
  void require_same_order(const LoaderState& other) const;
};

}  // namespace millrace
