#include "pipeline/loader/bad_samples.h"

#include <algorithm>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <oneapi/tbb/global_control.h>
#include <set>

#include "tests/base/temporary_folder.h"
#include "tests/pipeline/image/noise.h"
#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class BadSamplesTest : public testing::Test {
  tbb::global_control workers_{tbb::global_control::max_allowed_parallelism, 5};
};

constexpr int kSamples = 60;
const std::vector<std::int64_t> kBad = {0, 1, 7, 13, 14, 15, 16, 41, 59};

std::shared_ptr<Noise> make_data() {
  auto data = std::make_shared<Noise>(kSamples, 6, 5);
  data->failing = kBad;
  data->name_classes(10);
  return data;
}

LoaderOptions make_options(BadSamples what, std::vector<BadSample>* reported = nullptr) {
  return {.batch_size = 16,
          .transforms = "random_crop:2,horizontal_flip,normalize",
          .order = {},
          .tail = Tail::pad,
          .bad_samples = what,
          .max_bad_rate = 1,
          .on_bad_sample =
              [reported](const BadSample& bad) {
                if (reported != nullptr) {
                  reported->push_back(bad);
                }
              },
          .shards = 2,
          .threads = 3,
          .slabs = 4,
          .chunk = 3,
          .seed = 4};
}

TEST_F(BadSamplesTest, MaskedOnesLeaveZerosAtTheEndAndNothingElseMoves) {
  const auto data = make_data();
  std::vector<BadSample> reported;
  Loader loader(data, make_options(BadSamples::mask, &reported));
  const auto whole = std::make_shared<Noise>(kSamples, 6, 5);
  whole->name_classes(10);
  Loader good(whole, make_options(BadSamples::fail));
  good.epoch(0);
  Batch expected;
  std::multiset<std::int64_t> seen;
  for (const Batch& batch : loader.epoch(0)) {
    ASSERT_TRUE(good.next(expected));
    for (int s = 0; s < batch.shards(); ++s) {
      const Slab &slab = batch.shard(s), &all = expected.shard(s);
      std::int64_t place = 0;
      for (std::int64_t i = 0; i < all.valid; ++i) {
        const auto id = static_cast<std::int64_t>(all.ids().at({i}));
        if (std::count(kBad.begin(), kBad.end(), id) > 0) {
          continue;
        }
        ASSERT_EQ(slab.ids().at({place}), id);
        EXPECT_EQ(slab.field("label").at({place}), all.field("label").at({i}));
        EXPECT_TRUE(all_close(slab.field("image")[place], all.field("image")[i], 0, 0));
        seen.insert(id);
        ++place;
      }
      EXPECT_EQ(slab.valid, place);
      EXPECT_EQ(slab.samples(), 8) << "a batch never shrinks";
      for (std::int64_t i = place; i < slab.samples(); ++i) {
        EXPECT_EQ(slab.ids().at({i}), -1);
        EXPECT_EQ(slab.field("label").at({i}), -1);
        EXPECT_EQ(max(abs(slab.field("image")[i])).item(), 0);
      }
    }
  }
  EXPECT_EQ(seen.size(), kSamples - kBad.size());
  ASSERT_EQ(reported.size(), kBad.size());
  EXPECT_EQ(loader.bad_samples(), std::ssize(kBad));
  std::set<std::int64_t> ids;
  for (const BadSample& bad : reported) {
    ids.insert(bad.id);
    EXPECT_EQ(bad.substitute, -1);
    EXPECT_THAT(bad.reason, HasSubstr("noise " + std::to_string(bad.id)));
  }
  EXPECT_EQ(ids, std::set<std::int64_t>(kBad.begin(), kBad.end()));
}

TEST_F(BadSamplesTest, SubstitutesAreGoodOnesAndToldInIds) {
  std::vector<BadSample> reported;
  Loader loader(make_data(), make_options(BadSamples::substitute, &reported));
  std::map<std::int64_t, int> seen;
  std::int64_t valid = 0;
  for (const Batch& batch : loader.epoch(0)) {
    valid += batch.valid();
    for (int s = 0; s < batch.shards(); ++s) {
      const Batch shard = batch.share(s);
      for (std::int64_t i = 0; i < shard.valid(); ++i) {
        EXPECT_EQ(shard.ids().at({i}), shard.labels().at({i}));
        ++seen[static_cast<std::int64_t>(shard.ids().at({i}))];
      }
    }
  }
  EXPECT_EQ(valid, kSamples);
  ASSERT_EQ(reported.size(), kBad.size());
  for (const BadSample& bad : reported) {
    ASSERT_GE(bad.substitute, 0);
    EXPECT_EQ(std::count(kBad.begin(), kBad.end(), bad.substitute), 0);
    --seen[bad.substitute];
  }
  for (std::int64_t id = 0; id < kSamples; ++id) {
    EXPECT_EQ(seen[id], std::count(kBad.begin(), kBad.end(), id) == 0 ? 1 : 0) << id;
  }
}

TEST_F(BadSamplesTest, WithoutAGoodSubstituteThePlaceIsMasked) {
  const auto data = std::make_shared<Noise>(kSamples, 4, 4);
  for (std::int64_t id = 1; id < kSamples; ++id) {
    data->failing.push_back(id);
  }
  LoaderOptions options = make_options(BadSamples::substitute);
  options.order = {Order::sequential};
  Loader loader(data, options);
  Batch batch;
  loader.epoch(0);
  ASSERT_TRUE(loader.next(batch));
  EXPECT_GE(batch.valid(), 1);
  EXPECT_LT(batch.valid(), 16);
  EXPECT_EQ(batch.shard(0).ids().at({0}), 0);
}

TEST_F(BadSamplesTest, BytesAndReportsDoNotDependOnThreadsSlabsOrChunks) {
  for (const BadSamples what : {BadSamples::mask, BadSamples::substitute}) {
    std::vector<std::byte> expected;
    std::vector<std::pair<std::int64_t, std::int64_t>> expected_reports;
    for (const int threads : {1, 2, 4}) {
      for (const int slabs : {2, 5}) {
        for (const int chunk : {1, 3, 128}) {
          std::vector<BadSample> reported;
          LoaderOptions options = make_options(what, &reported);
          options.transforms += ",mixup:0.4,cutmix:1";
          options.threads = threads;
          options.slabs = slabs;
          options.chunk = chunk;
          const auto data = make_data();
          data->label_classes = 10;
          Loader loader(data, options);
          std::vector<std::byte> bytes = bytes_of_epoch(loader, 1);
          std::vector<std::pair<std::int64_t, std::int64_t>> reports;
          for (const BadSample& bad : reported) {
            reports.emplace_back(bad.id, bad.substitute);
          }
          if (expected.empty()) {
            expected = bytes;
            expected_reports = reports;
          }
          EXPECT_EQ(bytes, expected) << threads << " threads, " << slabs << " slabs, chunk " << chunk;
          EXPECT_EQ(reports, expected_reports);
        }
      }
    }
  }
}

TEST_F(BadSamplesTest, TrainedWeightsDoNotDependOnReplicasOrThreads) {
  std::string expected;
  for (const int replicas : {1, 2}) {
    for (const int threads : {1, 3}) {
      const auto data = std::make_shared<Noise>(kSamples, 32, 32);
      data->failing = kBad;
      data->label_classes = 10;
      LoaderOptions options = make_options(BadSamples::mask);
      options.threads = threads;
      Loader loader(data, options);
      Trainer trainer{make_small_net,
                      nn::SgdOptions{.learning_rate = 0.05},
                      {.replicas = replicas, .shards = 2, .seed = 5}};
      for (int epoch = 0; epoch < 2; ++epoch) {
        for (const Batch& batch : loader.epoch(epoch)) {
          trainer.step(batch, sum_of_losses);
        }
      }
      const std::string hash = trainer.weights_hash();
      expected = expected.empty() ? hash : expected;
      EXPECT_EQ(hash, expected) << replicas << " replicas, " << threads << " threads";
    }
  }
}

TEST_F(BadSamplesTest, ABatchWithoutAValidSampleIsAStepOfTheAverageAlone) {
  const auto data = std::make_shared<Noise>(kSamples, 32, 32);
  data->label_classes = 10;
  for (std::int64_t id = 16; id < 32; ++id) {
    data->failing.push_back(id);
  }
  LoaderOptions options = make_options(BadSamples::mask);
  options.order = {Order::sequential};
  for (const bool looks_ahead : {false, true}) {
    Loader loader(data, options);
    TrainerOptions training{.replicas = 2, .shards = 2, .seed = 5};
    if (looks_ahead) {
      training.lookahead = nn::LookaheadOptions{.every = 2};
    }
    Trainer trainer{make_small_net, nn::SgdOptions{.learning_rate = 0.05}, training};
    Batch batch;
    loader.epoch(0);
    ASSERT_TRUE(loader.next(batch));
    trainer.step(batch, sum_of_losses);
    const TrainerState before = trainer.state();
    ASSERT_TRUE(loader.next(batch));
    EXPECT_EQ(trainer.step(batch, sum_of_losses).valid, 0);
    EXPECT_EQ(trainer.steps(), 2);
    const TrainerState after = trainer.state();
    for (std::size_t i = 0; i < after.weights.size(); ++i) {
      const auto& [name, weight] = before.weights[i];
      const auto average = std::ranges::find(before.average, name, &std::pair<std::string, Tensor>::first);
      const bool moves = average != before.average.end();
      const Tensor expected = moves ? (weight + average->second) * 0.5 : weight;
      EXPECT_TRUE(all_close(after.weights[i].second, expected, moves ? 1e-6 : 0, moves ? 1e-8 : 0)) << name;
    }
    EXPECT_EQ(before.average.empty(), !looks_ahead);
  }
}

TEST_F(BadSamplesTest, TooManyAreAnErrorThatNamesTheFirst) {
  const auto data = std::make_shared<Noise>(1000, 2, 2);
  for (std::int64_t id = 100; id < 1000; id += 20) {
    data->failing.push_back(id);
  }
  LoaderOptions options = make_options(BadSamples::mask);
  options.order = {Order::sequential};
  options.max_bad_rate = 0.01;
  Loader loader(data, options);
  std::int64_t taken = 0;
  try {
    for (const Batch& batch : loader.epoch(0)) {
      taken += batch.valid();
    }
    FAIL() << "45 of 1000 passed";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("11 of the first"), HasSubstr("noise 100"),
                                    HasSubstr("noise 120"), HasSubstr("0.01")));
  }
  EXPECT_GT(taken, 250);
  options.max_bad_rate = 0.05;
  Loader patient(data, options);
  taken = 0;
  for (const Batch& batch : patient.epoch(0)) {
    taken += batch.valid();
  }
  EXPECT_EQ(taken, 955);
}

TEST_F(BadSamplesTest, AFailingMachineIsNeverMasked) {
  const auto data = std::make_shared<Noise>(kSamples, 4, 4);
  data->broken = 20;
  LoaderOptions options = make_options(BadSamples::mask);
  options.order = {Order::sequential};
  Loader loader(data, options);
  Batch batch;
  loader.epoch(0);
  ASSERT_TRUE(loader.next(batch));
  EXPECT_THROW(loader.next(batch), MachineError);
}

/// Refuses some draws whatever the image, or small images whatever the draw.
class Refusing final : public Transform {
 public:
  explicit Refusing(bool small) : small_(small) {}
  void edit(SamplePlan& plan, SampleRandom& random) const override {
    if (small_ ? plan.source.height < 6 : random.epoch() > 0 && random.below(2) == 1) {
      throw InputError("refused");
    }
  }
  std::string describe() const override { return "refusing"; }

 private:
  bool small_;
};

TEST_F(BadSamplesTest, TransformsThatAreWrongForAnImageOfTheFirstOnesSizeEndTheRun) {
  for (const BadSamples what : {BadSamples::mask, BadSamples::substitute}) {
    LoaderOptions options = make_options(what);
    options.custom_transforms = {std::make_shared<Refusing>(false)};
    Loader loader(make_data(), options);
    loader.epoch(0);
    EXPECT_THAT(test::input_error([&] { bytes_of_epoch(loader, 1); }),
                AllOf(HasSubstr("noise"), HasSubstr("refused")));

    const auto data = std::make_shared<Noise>(kSamples, 6, 5);
    data->smaller = 20;
    options.transforms = "resize:6";
    options.custom_transforms = {std::make_shared<Refusing>(true)};
    Loader others(data, options);
    bytes_of_epoch(others, 0);
    EXPECT_EQ(others.bad_samples(), 1) << "another size may be the image's fault";
  }
}

TEST_F(BadSamplesTest, NamesAndRates) {
  EXPECT_EQ(parse_bad_samples("fail"), BadSamples::fail);
  EXPECT_EQ(parse_bad_samples("mask"), BadSamples::mask);
  EXPECT_EQ(parse_bad_samples("substitute"), BadSamples::substitute);
  EXPECT_THROW(parse_bad_samples("skip"), InputError);
  for (const double rate : {0.0, -1.0, 1.5, std::nan("")}) {
    LoaderOptions options = make_options(BadSamples::mask);
    options.max_bad_rate = rate;
    EXPECT_THROW(Loader(make_data(), options), InputError) << rate;
  }
}

TEST_F(BadSamplesTest, OnlyTheFirstArePrinted) {
  testing::internal::CaptureStderr();
  const BadSampleReport report = print_bad_samples();
  for (int i = 0; i < 30; ++i) {
    report({.id = i, .reason = "folder/" + std::to_string(i) + ".jpg: no image"});
  }
  const std::string printed = testing::internal::GetCapturedStderr();
  EXPECT_THAT(printed, AllOf(HasSubstr("folder/0.jpg: no image"), HasSubstr("masked")));
  EXPECT_EQ(std::count(printed.begin(), printed.end(), '\n'), 11);
}

}  // namespace
}  // namespace millrace
