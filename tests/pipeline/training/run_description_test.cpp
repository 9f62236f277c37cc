#include "pipeline/training/run_description.h"

#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tensor/gpu/arithmetic.h"
#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

struct Recipe {
  nn::SgdOptions sgd{.learning_rate = 0.05, .momentum = 0.9};
  TrainerOptions trainer{.replicas = 1, .shards = 4, .seed = 5};
  LoaderOptions loader{.batch_size = 16, .shards = 4, .threads = 1, .seed = 5};
  std::string data = "synthetic:64";
};

RunDescription describe(const Recipe& recipe, RunDescription::Values more = {}) {
  Trainer trainer{make_small_net, recipe.sgd, recipe.trainer};
  const Loader loader(open_dataset(recipe.data), recipe.loader);
  return describe_run(trainer, loader, std::move(more));
}

std::string changed_by(const std::function<void(Recipe&)>& change) {
  Recipe recipe;
  change(recipe);
  return differences(describe(Recipe()).options, "before", describe(recipe).options, "now");
}

TEST(RunDescription, NamesWhatTheBitsDependOn) {
  EXPECT_EQ(changed_by([](Recipe& r) { r.sgd.nesterov = true; }),
            "optimizer: SGD, learning rate 0.05, momentum 0.9, weight decay 0 before, SGD, learning rate "
            "0.05, momentum 0.9, "
            "weight decay 0, nesterov now");
  EXPECT_EQ(changed_by([](Recipe& r) { r.trainer.shards = r.loader.shards = 8; }), "shards: 4 before, 8 now");
  EXPECT_EQ(changed_by([](Recipe& r) { r.trainer.sum_order = SumOrder::engine; }),
            "order of sums: tree before, engine now");
  EXPECT_EQ(changed_by([](Recipe& r) { r.trainer.seed = 6; }), "seed: 5 before, 6 now");
  EXPECT_EQ(changed_by([](Recipe& r) { r.loader.batch_size = 32; }), "batch size: 16 before, 32 now");
  EXPECT_EQ(changed_by([](Recipe& r) {
              r.loader.mean = {0.1f, 0.2f, 0.3f};
            }),
            "mean: 0.5 before, 0.1,0.2,0.3 now");
  EXPECT_EQ(changed_by([](Recipe& r) { r.loader.transforms = "cutout:8"; }),
            "transforms: normalize before, cutout:8 now");
  EXPECT_EQ(changed_by([](Recipe& r) {
              r.loader.order = {Order::blocks, 8, 4};
            }),
            "order: shuffled, seed 5 before, blocks of 8 in windows of 4, seed 5 now");
  EXPECT_THAT(changed_by([](Recipe& r) { r.data = "synthetic:65"; }), testing::HasSubstr("data: 64 samples"));
  EXPECT_EQ(differences({{"a", "1"}}, "here", {{"b", "2"}}, "there"),
            "a: 1 here, nothing there; b: nothing here, 2 there");
}

TEST(RunDescription, NamesTheOrderOfSumsAsOlderCheckpointsDo) {
  EXPECT_EQ(describe(Recipe()).options.at("sums"), "tree");
}

TEST(RunDescription, KnowsTf32) {
  const RunDescription without = describe(Recipe());
  const GpuArithmetic before = gpu_arithmetic();
  set_gpu_arithmetic({.tf32 = true});
  const RunDescription with = describe(Recipe());
  set_gpu_arithmetic(before);
  EXPECT_EQ(differences(without.options, "before", with.options, "now"), "tf32: no before, yes now");
}

TEST(RunDescription, SaysNothingOfReplicasAndThreads) {
  const auto other = [](Recipe& r) {
    r.trainer.replicas = 4;
    r.trainer.bucket_bytes = 1024;
    r.loader.threads = 3;
    r.loader.slabs = 9;
  };
  EXPECT_EQ(changed_by(other), "");
}

TEST(RunDescription, KnowsTheMachine) {
  const RunDescription run = describe(Recipe(), {{"loss", "mine"}});
  EXPECT_EQ(run.options.at("loss"), "mine");
  for (const char* name :
       {"millrace", "processor", "oneDNN", "OpenCV", "libjpeg-turbo", "libpng", "compiler"}) {
    EXPECT_FALSE(run.environment.at(name).empty()) << name;
  }
}

}  // namespace
}  // namespace millrace
