#include "dataio/sampler.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "dataio/order.h"

namespace millrace {

namespace {

SamplerOptions checked(std::int64_t samples, SamplerOptions options) {
  if (options.local_shards == 0) {
    options.local_shards = options.shards - options.first_shard;
  }
  const auto& [batch_size, shards, first, local, tail, order, seed] = options;
  if (samples < 1) {
    throw InputError("sampler: the data set is empty");
  }
  EpochOrder(samples, order, seed, 0);  // says now, and not in a worker, what it cannot do
  if (batch_size < 1) {
    throw InputError("sampler: batch size {} is not positive", batch_size);
  }
  if (shards < 1 || !std::has_single_bit(static_cast<unsigned>(shards))) {
    throw InputError("sampler: {} shards, expected a power of two", shards);
  }
  if (batch_size % shards != 0) {
    throw InputError(
        "sampler: batch size {} cannot be split into {} equal shards; choose a batch size that {} divides",
        batch_size, shards, shards);
  }
  if (first < 0 || local < 1 || first + local > shards) {
    throw InputError("sampler: local shards {} to {} are not among the {} shards", first, first + local - 1,
                     shards);
  }
  if (tail == Tail::drop && samples < batch_size) {
    throw InputError(
        "sampler: the data set has {} samples, too few for one batch of {}; choose a smaller batch size",
        samples, batch_size);
  }
  return options;
}

}  // namespace

Sampler::Sampler(std::int64_t samples, SamplerOptions options)
    : samples_(samples), options_(checked(samples, options)) {
  const bool padded = options_.tail == Tail::pad && samples % options_.batch_size != 0;
  steps_ = samples / options_.batch_size + padded;
}

PlannedShard Sampler::planned(std::int64_t number) const {
  const std::int64_t global_step = number / options_.local_shards;
  PlannedShard planned;
  planned.epoch = global_step / steps_;
  planned.step = global_step % steps_;
  planned.shard = options_.first_shard + static_cast<int>(number % options_.local_shards);
  planned.first_position = planned.shard * shard_size();
  const std::int64_t start = planned.step * options_.batch_size + planned.first_position;
  planned.valid = std::clamp<std::int64_t>(samples_ - start, 0, shard_size());
  return planned;
}

void Sampler::indices(const PlannedShard& planned, std::span<std::int64_t> indices) const {
  if (static_cast<std::int64_t>(indices.size()) != shard_size()) {
    throw InputError("sampler: {} indices asked for, a shard has {}", indices.size(), shard_size());
  }
  const std::int64_t start = planned.step * options_.batch_size + planned.first_position;
  const auto valid = indices.first(static_cast<std::size_t>(planned.valid));
  EpochOrder(samples_, options_.order, options_.seed, planned.epoch).indices(start, valid);
  std::fill(indices.begin() + planned.valid, indices.end(), -1);
}

}  // namespace millrace
