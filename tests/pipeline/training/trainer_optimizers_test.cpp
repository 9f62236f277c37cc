#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <gmock/gmock.h>
#include <set>

#include "nn/state.h"
#include "pipeline/training/checkpoint.h"
#include "pipeline/training/trainer.h"
#include "tensor/ops.h"
#include "tests/base/temporary_folder.h"
#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// A way to train: the options of most parameters, those of the filters where they are others, and an
/// average.
struct Way {
  std::string name;
  nn::OptimizerOptions options;
  std::optional<nn::MuonOptions> filters = {};
  std::optional<nn::LookaheadOptions> lookahead = {};
};

const nn::LookaheadOptions kLookahead{.every = 3, .decay = [](std::int64_t t) { return 0.1 * std::sqrt(t); }};
const nn::LookaheadOptions kMovingAverage{
    .every = 2, .decay = [](std::int64_t) { return 0.8; }, .go_on_from_average = false};
const std::vector<Way> kWays = {
    {"sgd", kSgd},
    {"adam", nn::AdamOptions{.learning_rate = 0.003}},
    {"adamw", nn::AdamWOptions{.learning_rate = 0.003}},
    {"rmsprop", nn::RmsPropOptions{.learning_rate = 0.003, .momentum = 0.9, .centered = true}},
    {"muon", kSgd, nn::MuonOptions{.learning_rate = 0.05, .normalize_weights = true}},
    {"lookahead", nn::AdamOptions{.learning_rate = 0.003}, {}, kLookahead},
    {"moving average", kSgd, {}, kMovingAverage},
};

Loader make_optimizers_loader() {
  return Loader(open_dataset("synthetic:70"), {.batch_size = 16,
                                               .transforms = "random_crop:4,horizontal_flip,normalize",
                                               .tail = Tail::pad,
                                               .shards = 4,
                                               .threads = 1,
                                               .seed = 3});
}

/// The schedule of the first filters ends before the others'.
struct OptimizerRun {
  explicit OptimizerRun(const Way& way, int replicas = 1, std::uint64_t seed = 5,
                        std::int64_t bucket_bytes = 0)
      : trainer{make_small_net,
                way.options,
                {.replicas = replicas,
                 .shards = 4,
                 .seed = seed,
                 .schedule = nn::cosine_schedule(20),
                 .lookahead = way.lookahead,
                 .bucket_bytes = bucket_bytes}} {
    if (way.filters) {
      trainer.group("fc1.weight", *way.filters);
      trainer.group("conv1.weight", *way.filters, nn::piecewise_linear_schedule({{0, 1}, {6, 0}}));
    }
  }

  Trainer trainer;
};

std::string train(const Way& way, int replicas, std::int64_t bucket_bytes = 0) {
  OptimizerRun run(way, replicas, 5, bucket_bytes);
  Loader loader = make_optimizers_loader();
  for (int epoch = 0; epoch < 2; ++epoch) {
    for (const Batch& batch : loader.epoch(epoch)) {
      run.trainer.step(batch, sum_of_losses);
    }
  }
  run.trainer.finish();
  return run.trainer.weights_hash();
}

TEST(TrainerOptimizers, EachGivesEqualBitsOnAnyNumberOfReplicas) {
  std::set<std::string> hashes;
  for (const Way& way : kWays) {
    const std::string one = train(way, 1);
    EXPECT_TRUE(hashes.insert(one).second) << way.name << " trains as another one does";
    EXPECT_EQ(train(way, 2), one) << way.name;
    EXPECT_EQ(train(way, 4), one) << way.name;
    EXPECT_EQ(train(way, 4, 2048), one) << way.name << ", a bucket at a time";
  }
}

/// After each step another trainer takes over, by way of a checkpoint on disk.
TEST(TrainerOptimizers, EachGoesOnFromACheckpoint) {
  for (const Way& way : kWays) {
    const test::TemporaryFolder folder;
    std::filesystem::path place;
    Loader loader = make_optimizers_loader();
    int handed_over = 0;
    for (int epoch = 0; epoch < 2; ++epoch) {
      for (const Batch& batch : loader.epoch(epoch)) {
        OptimizerRun run(way, 1 << handed_over % 3);
        if (handed_over++ > 0) {
          run.trainer.restore(load_checkpoint(place).trainer);
        }
        run.trainer.step(batch, sum_of_losses);
        place = save_checkpoint(folder.path(), {run.trainer.state(), loader.state(), {}});
      }
    }
    OptimizerRun last(way, 4, 99);
    last.trainer.restore(load_checkpoint(place).trainer);
    last.trainer.finish();
    EXPECT_EQ(last.trainer.weights_hash(), train(way, 1)) << way.name;
  }
}

TEST(TrainerOptimizers, AMovingAverageIsEvaluatedAndLeavesTrainingAlone) {
  const Way& way = kWays.back();
  Loader loader = make_optimizers_loader();
  Loader test(open_dataset("synthetic:70", {.train = false}),
              {.batch_size = 16, .order = {Order::sequential}, .tail = Tail::pad, .shards = 4});
  OptimizerRun run(way, 2), undisturbed({"without", way.options}, 2);
  for (const Batch& batch : loader.epoch(0)) {
    run.trainer.step(batch, sum_of_losses);
    undisturbed.trainer.step(batch, sum_of_losses);
    const double loss = run.trainer.evaluate(test).loss;
    EXPECT_NE(loss, undisturbed.trainer.evaluate(test).loss);
    EXPECT_EQ(run.trainer.weights_hash(), undisturbed.trainer.weights_hash());
  }
  const double loss = run.trainer.evaluate(test).loss;
  run.trainer.finish();
  EXPECT_EQ(run.trainer.evaluate(test).loss, loss);
  EXPECT_NE(run.trainer.weights_hash(), undisturbed.trainer.weights_hash());
}

TEST(TrainerOptimizers, AnAverageBeginsWithTheWeightsThatTrainingBeginsWith) {
  OptimizerRun run({"average", kSgd, {}, nn::LookaheadOptions{.every = 100, .go_on_from_average = false}}, 2);
  nn::manual_seed(77);
  const SmallNet other;
  nn::load_state_dict(run.trainer.module(), nn::state_dict(other));
  Loader loader = make_optimizers_loader();
  for (const Batch& batch : loader.epoch(0)) {
    run.trainer.step(batch, sum_of_losses);
  }
  run.trainer.finish();  // before the first update of the average
  const nn::StateDict expected = nn::state_dict(other);
  for (const auto& [name, tensor] : nn::state_dict(run.trainer.module())) {
    if (tensor.dtype() == DType::f32) {
      const auto same = std::find_if(expected.begin(), expected.end(),
                                     [&name = name](const auto& e) { return e.first == name; });
      EXPECT_TRUE(all_close(tensor, same->second, 0, 0)) << name;
    }
  }
}

TEST(TrainerOptimizers, AStateThatDoesNotFitIsNamed) {
  OptimizerRun adam(kWays[1]), average(kWays.back());
  EXPECT_THAT(test::input_error([&] { OptimizerRun(kWays[0]).trainer.restore(adam.trainer.state()); }),
              AllOf(HasSubstr("optimizer: this state does not fit; missing: fc2.bias.momentum_buffer"),
                    HasSubstr("unexpected: fc2.bias.exp_avg")));
  EXPECT_THAT(test::input_error([&] { OptimizerRun(kWays[0]).trainer.restore(average.trainer.state()); }),
              HasSubstr("trainer: this average of the weights does not fit; unexpected: fc2.bias"));
}

/// Of a state that fits in part, all replicas take the same part.
TEST(TrainerOptimizers, ReplicasStayAlikeAfterAStateThatDoesNotFit) {
  OptimizerRun adam(kWays[1], 1, 6);
  const auto hash = [&](int replicas) {
    OptimizerRun run(kWays[0], replicas);
    Loader loader = make_optimizers_loader();
    for (const Batch& batch : loader.epoch(0)) {
      run.trainer.step(batch, sum_of_losses);
      if (run.trainer.steps() == 1) {
        EXPECT_NE(test::input_error([&] { run.trainer.restore(adam.trainer.state()); }), "(no error)");
      }
    }
    return run.trainer.weights_hash();
  };
  EXPECT_EQ(hash(2), hash(1));
}

}  // namespace
}  // namespace millrace
