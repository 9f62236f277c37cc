// Training modes and frozen parameters that a caller changes in the trainer's network.
#include <cstring>
#include <gmock/gmock.h>
#include <optional>

#include "nn/state.h"
#include "tests/base/temporary_folder.h"
#include "tests/distributed/processes/process_threads.h"
#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

using testing::AllOf;
using testing::HasSubstr;

LoaderOptions loading(ShardRange shards) {
  return {.batch_size = 16,
          .transforms = "random_crop:4,horizontal_flip,normalize",
          .shards = 4,
          .first_shard = shards.first,
          .local_shards = shards.count,
          .threads = 1,
          .seed = 3};
}

Loader make_switches_loader(ShardRange shards = {0, 4}) {
  return Loader(open_dataset("synthetic:64"), loading(shards));
}

SmallNet& net_of(Trainer& trainer) { return dynamic_cast<SmallNet&>(trainer.module()); }

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

void freeze(SmallNet& net) {
  net.conv1.weight.set_requires_grad(false);
  net.conv1.bias.set_requires_grad(false);
  net.fc1.bias.set_requires_grad(false);
  net.norm1.eval();
  net.drop.eval();
}

/// Four steps as made, four with layers frozen and in evaluation mode, four with one of them trainable again,
/// with an evaluation behind each four. The last are taken by another trainer if `resumes`.
Trained train_partly(const TrainerOptions& options, bool changes,
                     const nn::OptimizerOptions& optimizer = kSgd, bool resumes = false) {
  std::optional<Trainer> place(std::in_place, make_small_net, optimizer, options);
  Trainer* trainer = &*place;
  Loader loader = make_switches_loader(local_shards(trainer->options()));
  Loader test(open_dataset("synthetic:40", {.train = false}), [&] {
    LoaderOptions o = loading(local_shards(trainer->options()));
    o.tail = Tail::pad;
    return o;
  }());
  Trained result;
  SmallNet* net = &net_of(*trainer);
  for (int epoch = 0; epoch < 3; ++epoch) {
    if (epoch == 1 && changes) {
      freeze(*net);
    }
    if (epoch == 2 && resumes) {
      const TrainerState state = trainer->state();
      place.emplace(make_small_net, optimizer, options);
      trainer = &*place;
      trainer->restore(state);
      net = &net_of(*trainer);
      freeze(*net);
    }
    if (epoch == 2 && changes) {
      net->conv1.weight.set_requires_grad(true);
    }
    for (const Batch& batch : loader.epoch(epoch)) {
      result.losses.push_back(trainer->step(batch, sum_of_losses).loss);
    }
    result.losses.push_back(trainer->evaluate(test).loss);
  }
  result.hash = trainer->weights_hash();
  return result;
}

/// Adam's steps depend on how long a parameter was frozen.
TEST(Switches, AreThoseOfAnUndisturbedRunAfterAResume) {
  const nn::AdamOptions adam{.learning_rate = 0.01};
  const auto train = [&](int replicas, bool resumes) {
    return train_partly({.replicas = replicas, .shards = 4, .seed = 5}, true, adam, resumes);
  };
  const Trained one = train(1, false);
  EXPECT_EQ(train(4, false), one);
  EXPECT_EQ(train(1, true), one);
  EXPECT_EQ(train(4, true), one);
}

TEST(Switches, ReachAllReplicas) {
  for (const bool replay : {false, true}) {
    const auto train = [&](int replicas, bool changes = true) {
      return train_partly({.replicas = replicas, .shards = 4, .seed = 5, .replay = replay}, changes);
    };
    const Trained one = train(1);
    EXPECT_EQ(train(2), one) << "replay " << replay;
    EXPECT_EQ(train(4), one) << "replay " << replay;
    EXPECT_NE(train(1, false).hash, one.hash) << "what is frozen must be seen, or this test sees nothing";
  }
}

/// Rank 0's reach the others, which change nothing.
TEST(Switches, ReachAllProcesses) {
  const Trained one = train_partly({.replicas = 1, .shards = 4, .seed = 5}, true);
  for (const int processes : {2, 3}) {
    const auto errors =
        on_process_threads(processes, {}, [&](const std::shared_ptr<ProcessGroup>& processes) {
          const TrainerOptions options{
              .replicas = processes->size() == 2 ? 2 : 1, .shards = 4, .processes = processes, .seed = 5};
          EXPECT_EQ(train_partly(options, processes->rank() == 0), one) << processes->rank();
        });
    EXPECT_THAT(errors, testing::Each(""));
  }
}

/// In the middle of an epoch, where each process has recorded its steps.
TEST(Switches, ReachRecordedStepsOfAllProcesses) {
  const auto train = [](TrainerOptions options, bool changes) {
    options.shards = 4;
    options.seed = 5;
    options.replay = true;
    const auto make = [] {
      auto net = std::make_unique<SmallNet>();
      net->drop.eval();  // its masks cannot be recorded
      return net;
    };
    Trainer trainer{make, kSgd, options};
    Loader loader = make_switches_loader(local_shards(trainer.options()));
    SmallNet& net = net_of(trainer);
    for (int epoch = 0; epoch < 3; ++epoch) {
      for (const Batch& batch : loader.epoch(epoch)) {
        trainer.step(batch, sum_of_losses);
        if (trainer.steps() == 6 && changes) {
          freeze(net);
        }
      }
    }
    return trainer.weights_hash();
  };
  const std::string one = train({.replicas = 1}, true);
  EXPECT_NE(train({.replicas = 1}, false), one);
  const auto errors = on_process_threads(2, {}, [&](const std::shared_ptr<ProcessGroup>& processes) {
    EXPECT_EQ(train({.replicas = 1, .processes = processes}, processes->rank() == 0), one)
        << processes->rank();
  });
  EXPECT_THAT(errors, testing::Each(""));
}

TEST(Switches, FrozenLayersStayAsTheyAre) {
  for (const nn::OptimizerOptions& optimizer :
       {nn::OptimizerOptions(kSgd), nn::OptimizerOptions(nn::AdamWOptions{.weight_decay = 0.1})}) {
    Loader loader = make_switches_loader();
    Trainer trainer{make_small_net, optimizer, {.replicas = 2, .shards = 4, .seed = 5}};
    for (const Batch& batch : loader.epoch(0)) {  // so that momentum is there
      trainer.step(batch, sum_of_losses);
    }
    SmallNet& net = net_of(trainer);
    freeze(net);
    const auto frozen = [&] {
      return std::vector{net.conv1.weight.data().clone(), net.conv1.bias.data().clone(),
                         net.fc1.bias.data().clone(), net.norm1.running_mean.clone()};
    };
    const std::vector<Tensor> before = frozen();
    const Tensor weight = net.fc1.weight.data().clone();
    for (const Batch& batch : loader.epoch(1)) {
      trainer.step(batch, sum_of_losses);
    }
    const std::vector<Tensor> after = frozen();
    for (std::size_t i = 0; i < before.size(); ++i) {
      EXPECT_TRUE(same_bits(before[i], after[i])) << i;
    }
    EXPECT_FALSE(same_bits(weight, net.fc1.weight.data()));
    net.conv1.weight.set_requires_grad(true);
    for (const Batch& batch : loader.epoch(2)) {
      trainer.step(batch, sum_of_losses);
    }
    EXPECT_FALSE(same_bits(before[0], net.conv1.weight.data())) << "trainable again";
    EXPECT_TRUE(same_bits(before[1], net.conv1.bias.data()));
  }
}

TEST(Switches, EvaluationLeavesModesAsTheyWere) {
  Loader test(open_dataset("synthetic:40", {.train = false}), loading({0, 4}));
  Trainer trainer{make_small_net, kSgd, {.replicas = 2, .shards = 4}};
  SmallNet& net = net_of(trainer);
  net.norm1.eval();
  trainer.evaluate(test);
  EXPECT_TRUE(net.is_training() && net.drop.is_training());
  EXPECT_FALSE(net.norm1.is_training());
  EXPECT_THROW(
      trainer.evaluate(
          test, [](nn::Module&, const Variable&) -> Variable { throw std::runtime_error("no scores"); }),
      std::runtime_error);
  EXPECT_TRUE(net.is_training() && net.drop.is_training());
}

TEST(Switches, AParameterWithoutAPlaceInTheOptimizerIsNamed) {
  const auto make = [] {
    auto net = std::make_unique<SmallNet>();
    net->fc1.weight.set_requires_grad(false);
    return net;
  };
  Loader loader = make_switches_loader();
  Trainer trainer{make, kSgd, {.replicas = 2, .shards = 4}};
  Batch batch;
  auto epoch = loader.epoch(0);
  ASSERT_TRUE(loader.next(batch));
  trainer.step(batch, sum_of_losses);
  Variable& weight = net_of(trainer).fc1.weight;
  weight.set_requires_grad(true);
  EXPECT_THAT(test::input_error([&] { trainer.step(batch, sum_of_losses); }),
              AllOf(HasSubstr("fc1.weight was frozen"), HasSubstr("freeze that afterwards")));
  weight.set_requires_grad(false);
  trainer.step(batch, sum_of_losses);
  EXPECT_EQ(trainer.steps(), 2);
}

}  // namespace
}  // namespace millrace
