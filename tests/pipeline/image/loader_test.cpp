#include "pipeline/image/loader.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <oneapi/tbb/global_control.h>
#include <random>
#include <thread>

#include "pipeline/image/execute.h"
#include "tests/pipeline/image/noise.h"

namespace millrace {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr const char* kTransforms = "random_crop:2,horizontal_flip,cutout:3,normalize";

class LoaderTest : public testing::Test {
  // oneTBB gives no more workers than the machine has cores, less one, unless the application asks.
  tbb::global_control workers_{tbb::global_control::max_allowed_parallelism, 5};
};

TEST_F(LoaderTest, BitsDoNotDependOnThreadsSlabsOrChunks) {
  const auto data = std::make_shared<Noise>(300, 5, 7);
  for (const OrderOptions& order : {OrderOptions{}, OrderOptions{Order::blocks, 7, 4}}) {
    LoaderOptions options{.batch_size = 256, .transforms = kTransforms, .order = order, .tail = Tail::pad};
    options.shards = 2;
    options.seed = 11;
    options.threads = 1;
    Loader first(data, options);
    const auto expected = bytes_of_epoch(first, 0), next = bytes_of_epoch(first, 1);
    ASSERT_NE(expected, next);
    for (const int threads : {1, 2, 4}) {
      for (const int slabs : {2, 3, 5, 8}) {
        for (const int chunk : {1, 3, 64, 128}) {
          options.threads = threads;
          options.slabs = slabs;
          options.chunk = chunk;
          options.epochs = slabs;  // the next epoch prepared ahead, or not
          Loader loader(data, options);
          EXPECT_EQ(bytes_of_epoch(loader, 1), next)
              << threads << " threads, " << slabs << " slabs, chunk " << chunk;
          EXPECT_EQ(bytes_of_epoch(loader, 0), expected);
        }
      }
    }
  }
}

TEST_F(LoaderTest, DeliversWhatTheExecutorMakesInTheSamplersOrder) {
  const auto data = std::make_shared<Noise>(50, 8, 8);
  const LoaderOptions options{.batch_size = 8, .transforms = kTransforms, .threads = 2, .seed = 3};
  Loader loader(data, options);
  const Sampler sampler(50, {.batch_size = 8, .seed = 3});
  const SampleExecutor executor(data, options);
  SampleExecutor::Scratch scratch;
  Slab slab(8, executor.fields());
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    std::int64_t step = 0;
    for (const Batch& batch : loader.epoch(epoch)) {
      EXPECT_EQ(batch.epoch(), epoch);
      EXPECT_EQ(batch.step(), step);
      const PlannedShard planned = sampler.planned(epoch * sampler.steps_per_epoch() + step++);
      sampler.indices(planned, {slab.ids().data<std::int64_t>(), 8});
      executor.execute(slab, epoch, 0, 8, scratch);
      EXPECT_EQ(std::memcmp(batch.ids().raw(), slab.ids().raw(), 64), 0);
      EXPECT_EQ(std::memcmp(batch.labels().raw(), slab.field("label").raw(), 64), 0);
      EXPECT_EQ(std::memcmp(batch.images().raw(), slab.field("image").raw(), 8 * 8 * 8 * 3 * 4), 0);
    }
    EXPECT_EQ(step, 6);
  }
}

TEST_F(LoaderTest, EachSampleComesExactlyOnceAndPaddingIsMasked) {
  const auto data = std::make_shared<Noise>(53, 4, 4);
  Loader loader(data, {.batch_size = 12, .tail = Tail::pad, .shards = 2, .threads = 3});
  EXPECT_EQ(loader.steps_per_epoch(), 5);
  std::vector<int> seen(53);
  std::int64_t valid = 0;
  for (const Batch& batch : loader.epoch(0)) {
    valid += batch.valid();
    for (int i = 0; i < 2; ++i) {
      const Batch one = batch.share(i);
      EXPECT_EQ(one.images().shape(), (Shape{one.valid(), 3, 4, 4}));
      EXPECT_EQ(one.shard(0).first_position, 6 * i);
      for (std::int64_t j = 0; j < one.valid(); ++j) {
        ++seen[static_cast<std::size_t>(one.ids().at({j}))];
        EXPECT_EQ(one.ids().at({j}), one.labels().at({j}));
      }
      const Slab& slab = batch.shard(i);
      for (std::int64_t j = slab.valid; j < 6; ++j) {
        EXPECT_EQ(slab.ids().at({j}), -1);
        for (int c = 0; c < 3; ++c) {
          EXPECT_EQ(slab.field("image").at({j, c, 1, 1}), 0);
        }
      }
    }
  }
  EXPECT_EQ(valid, 53);
  EXPECT_EQ(seen, std::vector<int>(53, 1));
}

TEST_F(LoaderTest, LocalShardsAreThoseOfTheWholeBatch) {
  const auto data = std::make_shared<Noise>(64, 4, 4);
  LoaderOptions options{.batch_size = 16, .transforms = kTransforms, .shards = 4, .threads = 2};
  Loader whole(data, options);
  options.first_shard = 2;
  options.local_shards = 2;
  Loader half(data, options);
  Batch all, part;
  whole.epoch(1);
  half.epoch(1);
  while (whole.next(all)) {
    ASSERT_TRUE(half.next(part));
    ASSERT_EQ(part.shards(), 2);
    for (int i = 0; i < 2; ++i) {
      const Tensor &a = all.shard(2 + i).field("image"), &b = part.shard(i).field("image");
      EXPECT_EQ(std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.numel()) * 4), 0);
      EXPECT_EQ(part.shard(i).first_position, 4 * (2 + i));
    }
  }
  EXPECT_FALSE(half.next(part));
}

TEST_F(LoaderTest, AFailedSampleIsThrownWhenItsBatchComes) {
  auto data = std::make_shared<Noise>(40, 4, 4);
  data->failing = {21, 20, 37};
  Loader loader(data, {.batch_size = 8, .order = {Order::sequential}, .threads = 3, .chunk = 1});
  for (int again = 0; again < 3; ++again) {
    loader.epoch(again);
    Batch batch;
    ASSERT_TRUE(loader.next(batch));
    ASSERT_TRUE(loader.next(batch));
    try {
      loader.next(batch);
      FAIL();
    } catch (const InputError& error) {
      EXPECT_STREQ(error.what(), "cannot read noise 20");
    }
    ASSERT_TRUE(loader.next(batch)) << "the loader goes on after the failed batch";
    EXPECT_EQ(batch.ids().at({0}), 24);
    EXPECT_THROW(loader.next(batch), InputError);
    EXPECT_FALSE(loader.next(batch));
  }
}

TEST_F(LoaderTest, CanBeDestroyedAndRestartedAnywhere) {
  const auto data = std::make_shared<Noise>(200, 4, 4);
  std::vector<Batch> kept;
  for (int steps = 0; steps < 6; ++steps) {
    Loader loader(data, {.batch_size = 4, .threads = 2, .slabs = 8, .seed = 1});
    Batch batch;
    for (int epoch = 0; epoch < 3; ++epoch) {
      loader.epoch(epoch);
      for (int i = 0; i < steps; ++i) {
        ASSERT_TRUE(loader.next(batch));
      }
      EXPECT_EQ(batch.shards() == 1 ? batch.step() : -1, steps - 1);
      EXPECT_EQ(batch.epoch(), steps > 0 ? epoch : 0);
    }
    kept.push_back(std::move(batch));  // outlives its loader
  }
  EXPECT_EQ(kept.back().labels().at({0}), kept.back().ids().at({0}));
}

/// Waits until `count` samples were read; false after some seconds.
bool wait_for_reads(const Noise& data, int count) {
  for (int i = 0; i < 5000 && data.reads < count; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return data.reads >= count;
}

TEST_F(LoaderTest, TheNextEpochIsPreparedBeforeThisOneEnds) {
  const auto data = std::make_shared<Noise>(32, 4, 4);
  Loader loader(data, {.batch_size = 8, .threads = 2, .slabs = 3, .epochs = 2});
  const int before = data->reads;  // the size of the first image was asked for
  Batch last;
  loader.epoch(0);
  for (int step = 0; step < 4; ++step) {
    ASSERT_TRUE(loader.next(last));
  }
  EXPECT_TRUE(wait_for_reads(*data, before + 32 + 16)) << "two slabs are free while the last batch is held";
  loader.epoch(1);
  Batch first;
  ASSERT_TRUE(loader.next(first));
  EXPECT_EQ(first.epoch(), 1);
  EXPECT_EQ(first.step(), 0);
  last.release();
  while (loader.next(first)) {
  }
  EXPECT_EQ(data->reads, before + 64) << "nothing was made twice, and nothing beyond the last epoch";
}

TEST_F(LoaderTest, NothingIsPreparedThatWasNotAskedFor) {
  const auto data = std::make_shared<Noise>(32, 4, 4);
  Loader loader(data, {.batch_size = 8, .order = {Order::sequential}, .threads = 2, .slabs = 8});
  const int before = data->reads;
  for (int again = 0; again < 3; ++again) {
    for (const Batch& batch : loader.epoch(0)) {
      EXPECT_EQ(batch.epoch(), 0);
    }
  }
  EXPECT_EQ(data->reads, before + 3 * 32);
}

TEST_F(LoaderTest, JumpingElsewhereDropsWhatWasPrepared) {
  const auto data = std::make_shared<Noise>(64, 4, 4);
  const LoaderOptions options{
      .batch_size = 8, .transforms = kTransforms, .threads = 2, .seed = 6, .epochs = 9};
  Loader plain(data, {.batch_size = 8, .transforms = kTransforms, .threads = 1, .seed = 6});
  Loader loader(data, options);
  Batch batch;
  loader.epoch(0);
  for (int step = 0; step < 8; ++step) {
    ASSERT_TRUE(loader.next(batch));
  }
  for (const std::int64_t epoch : {5, 5, 6, 2, 9, 10, 0, 1}) {
    EXPECT_EQ(bytes_of_epoch(loader, epoch), bytes_of_epoch(plain, epoch)) << "epoch " << epoch;
  }
}

TEST_F(LoaderTest, ManySmallBatchesPassOneThreadWithABusyConsumer) {
  const auto data = std::make_shared<Noise>(1000, 2, 2);
  Loader loader(data, {.batch_size = 2, .threads = 1, .slabs = 1});
  std::int64_t sum = 0;
  for (int epoch = 0; epoch < 3; ++epoch) {
    for (const Batch& batch : loader.epoch(epoch)) {
      volatile int busy = 0;
      while (busy < 1000) {
        busy = busy + 1;
      }
      for (std::int64_t i = 0; i < 2; ++i) {
        sum += static_cast<std::int64_t>(batch.ids().at({i}));
      }
    }
  }
  EXPECT_EQ(sum, 3 * 999 * 1000 / 2);
}

TEST_F(LoaderTest, TwoLoadersDoNotDisturbEachOther) {
  const auto data = std::make_shared<Noise>(96, 6, 6);
  const LoaderOptions options{.batch_size = 8, .transforms = kTransforms, .threads = 2, .seed = 4};
  Loader alone(data, options);
  const auto expected = bytes_of_epoch(alone, 0);
  std::vector<std::vector<std::byte>> got(2);
  std::vector<std::thread> consumers;
  for (auto& bytes : got) {
    consumers.emplace_back([&bytes, &data, &options] {
      Loader loader(data, options);
      for (int i = 0; i < 5; ++i) {
        bytes = bytes_of_epoch(loader, 0);
      }
    });
  }
  for (auto& consumer : consumers) {
    consumer.join();
  }
  EXPECT_EQ(got[0], expected);
  EXPECT_EQ(got[1], expected);
}

TEST_F(LoaderTest, SlabsMayComeBackFromOtherThreads) {
  const auto data = std::make_shared<Noise>(64, 3, 3);
  Loader loader(data, {.batch_size = 8, .shards = 2, .threads = 2});
  for (const Batch& batch : loader.epoch(0)) {
    std::thread a([one = batch.share(0)]() mutable { one.release(); });
    std::thread b([one = batch.share(1)]() mutable { one.release(); });
    a.join();
    b.join();
  }
}

std::string timeout_of(Loader& loader, std::vector<Batch>& held) {
  try {
    for (;;) {
      Batch batch;
      if (!loader.next(batch)) {
        return "no error";
      }
      held.push_back(std::move(batch));
    }
  } catch (const MachineError& error) {
    return error.what();
  }
}

TEST_F(LoaderTest, ATimeoutNamesTheStageThatIsStuck) {
  const auto data = std::make_shared<Noise>(64, 3, 3);
  std::vector<Batch> held;
  {
    Loader loader(data, {.batch_size = 8, .threads = 2, .slabs = 3, .timeout_seconds = 0.2});
    loader.epoch(0);
    EXPECT_THAT(timeout_of(loader, held), HasSubstr("all 3 slabs are held"));
    held.clear();
    EXPECT_THAT(timeout_of(loader, held), HasSubstr("all 3 slabs are held"))
        << "it went on with the slabs given back";
    EXPECT_EQ(held.size(), 3u);
    held.clear();
  }
  auto stuck = std::make_shared<Noise>(64, 3, 3);
  stuck->blocked = 13;
  Loader loader(
      stuck,
      {.batch_size = 8, .order = {Order::sequential}, .threads = 2, .slabs = 3, .timeout_seconds = 0.2});
  loader.epoch(0);
  EXPECT_THAT(timeout_of(loader, held), HasSubstr("sample 13"));
  EXPECT_EQ(held.size(), 1u);
  stuck->released = true;
}

/// Images of two sizes.
class Uneven final : public Dataset {
 public:
  std::int64_t size() const override { return 8; }
  const DatasetInfo& info() const override { return info_; }
  Sample read(std::int64_t index, std::vector<std::byte>& scratch) const override {
    const int side = index < 5 ? 6 : 8;
    scratch.assign(static_cast<std::size_t>(side * side * 3), std::byte{100});
    return {.bytes = scratch, .height = side, .width = side, .channels = 3};
  }
  std::string describe(std::int64_t index) const override { return fmt::format("uneven/{}.png", index); }

 private:
  DatasetInfo info_;
};

TEST_F(LoaderTest, ImagesOfUnequalSizeNeedATransformThatResizes) {
  const auto data = std::make_shared<Uneven>();
  Loader plain(data, {.batch_size = 4, .order = {Order::sequential}, .threads = 2});
  plain.epoch(0);
  Batch batch;
  ASSERT_TRUE(plain.next(batch));
  try {
    plain.next(batch);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("uneven/5.png"), HasSubstr("uneven/0.png"), HasSubstr("8 x 8"),
                                    HasSubstr("6 x 6"), HasSubstr("--transform resize:6")));
  }
  for (const char* transforms : {"resize:4x5", "center_crop:5", "random_resized_crop:7,random_crop:1"}) {
    Loader loader(data, {.batch_size = 4, .transforms = transforms, .threads = 2});
    std::int64_t valid = 0;
    for (const Batch& each : loader.epoch(0)) {
      valid += each.valid();
    }
    EXPECT_EQ(valid, 8) << transforms;
  }
}

/// Plans a crop beyond the image.
class Outside final : public Transform {
 public:
  void edit(SamplePlan& plan, SampleRandom&) const override { plan.crop.left = 1; }
  std::string describe() const override { return "outside"; }
};

/// Plans whatever it is told to.
class Planner final : public Transform {
 public:
  explicit Planner(std::function<void(SamplePlan&)> edit) : edit_(std::move(edit)) {}
  void edit(SamplePlan& plan, SampleRandom&) const override { edit_(plan); }
  std::string describe() const override { return "planner"; }

 private:
  std::function<void(SamplePlan&)> edit_;
};

TEST_F(LoaderTest, ATimeoutMayBeForEver) {
  Loader loader(std::make_shared<Noise>(8, 4, 4),
                {.batch_size = 8, .threads = 1, .timeout_seconds = std::numeric_limits<double>::infinity()});
  loader.epoch(0);
  Batch batch;
  EXPECT_TRUE(loader.next(batch));
}

TEST_F(LoaderTest, PlansThatNoImageCanFollowAreErrors) {
  constexpr std::int64_t kFar = std::numeric_limits<std::int64_t>::max() - 1;
  const std::function<void(SamplePlan&)> plans[] = {
      [](SamplePlan& plan) { plan.crop.height = 0; },
      [](SamplePlan& plan) { plan.crop.top = kFar; },
      [](SamplePlan& plan) {
        plan.source = plan.resized = {64, 64}, plan.crop.height = 64;
      },
      [](SamplePlan& plan) {
        plan.resized = {0, 3};
      },
      [](SamplePlan& plan) {
        plan.resized = {3, kFar};
      },
      [](SamplePlan& plan) { plan.window.width = -1; },
      [](SamplePlan& plan) { plan.window.height = plan.window.width = std::int64_t{1} << 40; },
      [](SamplePlan& plan) { plan.window.left = kFar; },
      [](SamplePlan& plan) {
        plan.holes.push_back({0, kFar, 2, kFar});
      },
  };
  for (std::size_t i = 0; i < std::size(plans); ++i) {
    LoaderOptions options{.batch_size = 8, .threads = 1};
    options.custom_transforms = {std::make_shared<Planner>(plans[i])};
    EXPECT_THROW(Loader(std::make_shared<Noise>(8, 4, 4), options), InputError) << "plan " << i;
  }
}

TEST_F(LoaderTest, WrongOptionsAreErrors) {
  const auto data = std::make_shared<Noise>(16, 3, 3);
  const auto error_of = [&data](LoaderOptions options) -> std::string {
    try {
      Loader loader(data, std::move(options));
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(error_of({.batch_size = 6, .shards = 4}), HasSubstr("6"));
  EXPECT_THAT(error_of({.batch_size = 17}), HasSubstr("17"));
  EXPECT_THAT(error_of({.batch_size = 8, .mean = {0.5f, 0.5f}}), HasSubstr("2 values of mean"));
  EXPECT_THAT(error_of({.batch_size = 8, .dtype = DType::f64}), HasSubstr("f64"));
  EXPECT_THAT(error_of({.batch_size = 8, .threads = -1}), HasSubstr("-1 threads"));
  EXPECT_THAT(error_of({.batch_size = 8, .threads = 100000}), HasSubstr("100000 threads"));
  EXPECT_THAT(error_of({.batch_size = 8, .shards = 4, .slabs = 3}), HasSubstr("3 slabs"));
  EXPECT_THAT(error_of({.batch_size = 8, .custom_transforms = {std::make_shared<Outside>()}}),
              HasSubstr("inside"));
  EXPECT_THAT(error_of({.batch_size = 8, .epochs = 0}), HasSubstr("0 epochs"));
  EXPECT_THROW(Loader(nullptr, {}), InputError);
  for (const int channels : {0, -3}) {
    EXPECT_THROW(Loader(std::make_shared<Noise>(8, 4, 4, channels), {.batch_size = 8}), InputError);
  }
  Loader loader(data, {.batch_size = 8, .shards = 2, .threads = 1});
  EXPECT_THROW(loader.epoch(-1), InputError);
  EXPECT_THROW(loader.epoch(std::numeric_limits<std::int64_t>::max()), InputError);
  Batch batch;
  EXPECT_FALSE(loader.next(batch)) << "no epoch was started";
  loader.epoch(0);
  ASSERT_TRUE(loader.next(batch));
  EXPECT_THROW(batch.images(), InputError);
  EXPECT_THROW(batch.share(2), InputError);
}

}  // namespace
}  // namespace millrace
