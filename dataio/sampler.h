#pragma once

#include <cstdint>
#include <span>

#include "dataio/order_options.h"

namespace millrace {

struct SamplerOptions {
  std::int64_t batch_size = 64;  ///< The global batch, over all shards.
  int shards = 1;                ///< Equal pieces of a batch; a power of two that divides it.
  int first_shard = 0;           ///< This process's shards are [first_shard, first_shard + local_shards).
  int local_shards = 0;          ///< 0 means all.
  Tail tail = Tail::drop;
  OrderOptions order = {};
  std::uint64_t seed = 0;
};

/// One shard of one batch, as a process's plan yields it.
struct PlannedShard {
  std::int64_t epoch = 0;
  std::int64_t step = 0;            ///< Within the epoch.
  int shard = 0;                    ///< Of all shards.
  std::int64_t first_position = 0;  ///< Of its first sample, in the global batch.
  std::int64_t valid = 0;           ///< Samples that are none of the padding; they come first.
};

/// Which samples make up each shard of each batch: a function of (seed, epoch, step, shard) alone.
///
/// Step g of an epoch covers the positions [g B, (g + 1) B) of the epoch's order, B the batch size;
/// shard s of V covers the s-th of V equal pieces of them. Immutable, so any thread may ask.
class Sampler {
 public:
  /// @throws InputError when there are no samples or not one whole batch of them (with Tail::drop), or when
  /// the shards are not a power of two that divides the batch, or the local ones lie outside of them.
  Sampler(std::int64_t samples, SamplerOptions options);

  const SamplerOptions& options() const { return options_; }  ///< With local_shards filled in.
  std::int64_t samples() const { return samples_; }
  std::int64_t steps_per_epoch() const { return steps_; }
  std::int64_t shard_size() const { return options_.batch_size / options_.shards; }
  /// The local shards of an epoch: steps_per_epoch() times the local shards.
  std::int64_t shards_per_epoch() const { return steps_ * options_.local_shards; }

  /// This process's plan, numbered from 0 without a break over epochs: by epoch, then step, then local shard.
  PlannedShard planned(std::int64_t number) const;
  /// Writes the shard's data set indices, -1 where it is padded. @p indices [shard_size()]
  void indices(const PlannedShard& planned, std::span<std::int64_t> indices) const;

 private:
  std::int64_t samples_;
  SamplerOptions options_;
  std::int64_t steps_ = 0;
};

}  // namespace millrace
