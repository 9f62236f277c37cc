#include "dataio/sampler.h"

#include <algorithm>
#include <vector>

#include "dataio/permutation.h"
#include "tests/base/temporary_folder.h"

namespace millrace {
namespace {

using testing::HasSubstr;

std::vector<std::int64_t> indices_of(const Sampler& sampler, const PlannedShard& planned) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(sampler.shard_size()), -7);
  sampler.indices(planned, indices);
  return indices;
}

std::vector<std::int64_t> epoch_of(const Sampler& sampler, std::int64_t epoch) {
  std::vector<std::int64_t> all;
  const std::int64_t shards = sampler.shards_per_epoch();
  for (std::int64_t number = epoch * shards; number < (epoch + 1) * shards; ++number) {
    const auto indices = indices_of(sampler, sampler.planned(number));
    all.insert(all.end(), indices.begin(), indices.end());
  }
  return all;
}

TEST(Sampler, FollowsThePermutationWhateverTheShards) {
  const Permutation order(103, 11, 2);
  std::vector<std::int64_t> expected;
  for (std::int64_t position = 0; position < 96; ++position) {
    expected.push_back(order(position));
  }
  for (const int shards : {1, 2, 4, 8, 16}) {
    const Sampler sampler(103, {.batch_size = 16, .shards = shards, .seed = 11});
    EXPECT_EQ(sampler.steps_per_epoch(), 6);
    EXPECT_EQ(sampler.shard_size(), 16 / shards);
    EXPECT_EQ(epoch_of(sampler, 2), expected) << shards << " shards";
    EXPECT_NE(epoch_of(sampler, 3), expected);
  }
}

TEST(Sampler, ProcessesTogetherCoverTheBatchesOfOne) {
  const Sampler whole(100, {.batch_size = 24, .shards = 8, .tail = Tail::pad, .seed = 5});
  const Sampler first(
      100,
      {.batch_size = 24, .shards = 8, .first_shard = 0, .local_shards = 2, .tail = Tail::pad, .seed = 5});
  const Sampler second(100, {.batch_size = 24, .shards = 8, .first_shard = 2, .tail = Tail::pad, .seed = 5});
  EXPECT_EQ(second.options().local_shards, 6);
  for (std::int64_t number = 0; number < 3 * whole.shards_per_epoch(); ++number) {
    const PlannedShard planned = whole.planned(number);
    const std::int64_t step = planned.epoch * whole.steps_per_epoch() + planned.step;
    const PlannedShard local = planned.shard < 2 ? first.planned(step * 2 + planned.shard)
                                                 : second.planned(step * 6 + planned.shard - 2);
    EXPECT_EQ(local.epoch, planned.epoch);
    EXPECT_EQ(local.step, planned.step);
    EXPECT_EQ(local.shard, planned.shard);
    EXPECT_EQ(local.first_position, planned.shard * 3);
    EXPECT_EQ(local.valid, planned.valid);
    EXPECT_EQ(indices_of(planned.shard < 2 ? first : second, local), indices_of(whole, planned));
  }
}

TEST(Sampler, PadsTheLastBatchAndVisitsEachSampleOnce) {
  const Sampler sampler(21, {.batch_size = 8, .shards = 4, .tail = Tail::pad, .seed = 3});
  EXPECT_EQ(sampler.steps_per_epoch(), 3);
  std::vector<std::int64_t> valid;
  for (std::int64_t number = 0; number < sampler.shards_per_epoch(); ++number) {
    valid.push_back(sampler.planned(number).valid);
  }
  EXPECT_EQ(valid, (std::vector<std::int64_t>{2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 0}));

  std::vector<std::int64_t> all = epoch_of(sampler, 0);
  EXPECT_EQ(std::vector(all.begin() + 21, all.end()), (std::vector<std::int64_t>{-1, -1, -1}));
  all.resize(21);
  std::sort(all.begin(), all.end());
  for (std::int64_t i = 0; i < 21; ++i) {
    EXPECT_EQ(all[static_cast<std::size_t>(i)], i);
  }
}

TEST(Sampler, WithoutShufflingKeepsTheOrder) {
  const Sampler sampler(7, {.batch_size = 2, .order = {Order::sequential}, .seed = 3});
  for (const std::int64_t epoch : {0, 1}) {
    EXPECT_EQ(epoch_of(sampler, epoch), (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5}));
  }
}

TEST(Sampler, WhatCannotBeSampledIsNamed) {
  const auto error = [](std::int64_t samples, const SamplerOptions& options) {
    return test::input_error([&] { Sampler(samples, options); });
  };
  EXPECT_THAT(error(0, {}), HasSubstr("empty"));
  EXPECT_THAT(error(std::numeric_limits<std::int64_t>::max(), {}), HasSubstr("9223372036854775807"));
  EXPECT_THAT(error(9, {.batch_size = 0}), HasSubstr("batch size 0"));
  EXPECT_THAT(error(100, {.batch_size = 10, .shards = 4}),
              testing::AllOf(HasSubstr("batch size 10"), HasSubstr("4 equal shards")));
  EXPECT_THAT(error(100, {.batch_size = 12, .shards = 3}), HasSubstr("power of two"));
  EXPECT_THAT(error(100, {.batch_size = 8, .shards = 0}), HasSubstr("0 shards"));
  EXPECT_THAT(error(9, {.batch_size = 10}),
              testing::AllOf(HasSubstr("9 samples"), HasSubstr("one batch of 10")));
  EXPECT_THAT(error(100, {.batch_size = 8, .shards = 4, .first_shard = 3, .local_shards = 2}),
              HasSubstr("3 to 4"));
  EXPECT_EQ(Sampler(9, {.batch_size = 10, .tail = Tail::pad}).steps_per_epoch(), 1);
}

}  // namespace
}  // namespace millrace
