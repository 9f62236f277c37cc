#include "pipeline/training/trainer.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <gmock/gmock.h>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "base/cores.h"
#include "distributed/tree_sum.h"
#include "nn/state.h"
#include "nn/step_context.h"
#include "nn/test_time_augmentation.h"
#include "tests/base/temporary_folder.h"
#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Loader make_trainer_loader(int samples, std::int64_t batch_size, int shards, DType dtype = DType::f32,
                           bool train = true) {
  return Loader(open_dataset("synthetic:" + std::to_string(samples), {.train = train}),
                {.batch_size = batch_size,
                 .transforms = "random_crop:4,horizontal_flip,normalize",
                 .dtype = dtype,
                 .order = {train ? Order::shuffled : Order::sequential},
                 .tail = Tail::pad,
                 .shards = shards,
                 .threads = 1,
                 .seed = 3});
}

/// Two epochs of 70 samples in batches of 16: each ends with a batch of 6, whose last shard of 4 is empty.
Trained train(int replicas, int shards, DType dtype = DType::f32, std::int64_t bucket_bytes = 0) {
  Loader loader = make_trainer_loader(70, 16, shards, dtype);
  Trainer trainer{
      make_small_net,
      kSgd,
      {.replicas = replicas, .shards = shards, .dtype = dtype, .seed = 5, .bucket_bytes = bucket_bytes}};
  Trained result;
  for (int epoch = 0; epoch < 2; ++epoch) {
    for (const Batch& batch : loader.epoch(epoch)) {
      result.losses.push_back(trainer.step(batch, sum_of_losses).loss);
    }
  }
  result.hash = trainer.weights_hash();
  return result;
}

TEST(Trainer, EqualShardsGiveEqualBitsOnAnyNumberOfReplicas) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    const Trained one = train(1, 4, dtype);
    ASSERT_EQ(one.losses.size(), 10u);
    EXPECT_EQ(train(2, 4, dtype), one) << name_of(dtype);
    EXPECT_EQ(train(4, 4, dtype), one) << name_of(dtype);
    EXPECT_NE(train(2, 2, dtype).hash, one.hash)
        << "the shards must be seen in the bits, or this test sees nothing";
  }
}

TEST(Trainer, EightShardsAsWell) { EXPECT_EQ(train(2, 8), train(1, 8)); }

TEST(Trainer, BucketsNeverChangeABit) {
  const Trained whole = train(2, 4);
  EXPECT_EQ(train(2, 4, DType::f32, 256), whole);
  EXPECT_EQ(train(4, 4, DType::f32, 4096), whole);
  EXPECT_EQ(train(1, 4, DType::f32, 256), whole);
}

/// The gradients of four shards, computed by hand and summed on the tree, give the trainer's bits.
TEST(Trainer, SumsShardsOnTheTree) {
  Loader loader = make_trainer_loader(16, 16, 4);
  Trainer trainer{make_small_net, kSgd, {.replicas = 2, .shards = 4, .seed = 5}};
  nn::manual_seed(5);
  SmallNet net;
  nn::FlatParameters flat(net);
  nn::Optimizer optimizer(flat, kSgd);
  for (const Batch& batch : loader.epoch(0)) {
    std::vector<Tensor> gradients;
    std::vector<double> losses;
    for (int shard = 0; shard < 4; ++shard) {
      flat.begin();
      nn::step_context() = {.seed = 5, .step = 0, .first_sample = 4 * shard};
      const Variable loss = sum_of_losses(net, batch.share(shard));
      loss.backward();
      flat.finish();
      losses.push_back(loss.item());
      gradients.push_back(flat.gradients().clone());
    }
    flat.gradients().copy_((gradients[0] + gradients[1]) + (gradients[2] + gradients[3]));
    flat.apply_statistics(16);
    optimizer.step({.gradient_scale = 1.0 / 16});
    const StepResult result = trainer.step(batch, sum_of_losses);
    EXPECT_EQ(result.loss, (losses[0] + losses[1]) + (losses[2] + losses[3]));
    EXPECT_EQ(result.valid, 16);
  }
  EXPECT_EQ(trainer.weights_hash(), nn::weights_hash(net));
}

TEST(Trainer, Learns) {
  Loader loader = make_trainer_loader(512, 32, 2);
  Trainer trainer{make_small_net, kSgd, {.replicas = 2, .seed = 1}};
  std::vector<double> means;
  for (int epoch = 0; epoch < 8; ++epoch) {
    double loss = 0;
    for (const Batch& batch : loader.epoch(epoch)) {
      loss += trainer.step(batch, sum_of_losses).loss;
    }
    means.push_back(loss / 512);
  }
  EXPECT_LT(means.back(), 0.8 * means.front());
  EXPECT_EQ(trainer.steps(), 128);
}

TEST(Trainer, ScheduleAndGroupsReachAllReplicas) {
  const auto train = [](int replicas) {
    Loader loader = make_trainer_loader(64, 16, 4);
    Trainer trainer{
        make_small_net, kSgd, {.replicas = replicas, .shards = 4, .schedule = nn::cosine_schedule(8)}};
    trainer.group("bias", nn::AdamOptions{.learning_rate = 0.5}, nn::step_schedule(2, 0.5));
    for (const Batch& batch : loader.epoch(0)) {
      trainer.step(batch, sum_of_losses);
    }
    return trainer.weights_hash();
  };
  EXPECT_EQ(train(4), train(1));
}

TEST(Trainer, LeavesTheCallersRandomNumbersAlone) {
  nn::manual_seed(9);
  Generator expected = nn::default_generator();
  const Trainer trainer{make_small_net, kSgd, {.replicas = 2, .seed = 1}};
  EXPECT_EQ(nn::default_generator().next(), expected.next());
}

TEST(Trainer, WeightsLoadedIntoItsNetworkReachAllReplicas) {
  const auto train = [](int replicas) {
    Loader loader = make_trainer_loader(64, 16, 4);
    Trainer trainer{make_small_net, kSgd, {.replicas = replicas, .shards = 4, .seed = 1}};
    nn::manual_seed(77);
    const SmallNet other;
    nn::load_state_dict(trainer.module(), nn::state_dict(other));
    for (const Batch& batch : loader.epoch(0)) {
      trainer.step(batch, sum_of_losses);
    }
    return trainer.weights_hash();
  };
  EXPECT_EQ(train(4), train(1));
}

/// After each step another trainer, with another number of replicas, takes over.
TEST(Trainer, GoesOnFromItsState) {
  Loader loader = make_trainer_loader(70, 16, 4);
  TrainerState state;
  int handed_over = 0;
  for (int epoch = 0; epoch < 2; ++epoch) {
    for (const Batch& batch : loader.epoch(epoch)) {
      Trainer trainer{make_small_net, kSgd, {.replicas = 1 << handed_over % 3, .shards = 4, .seed = 5}};
      if (handed_over++ > 0) {
        trainer.restore(state);
      }
      trainer.step(batch, sum_of_losses);
      EXPECT_EQ(trainer.steps(), handed_over);
      state = trainer.state();
    }
  }
  Trainer last{make_small_net, kSgd, {.replicas = 4, .shards = 4, .seed = 99}};
  last.restore(state);
  EXPECT_EQ(last.weights_hash(), train(1, 4).hash);
}

TEST(Trainer, AStateThatDoesNotFitIsNamed) {
  Trainer trainer{make_small_net, kSgd, {.replicas = 1}};
  TrainerState state = trainer.state();
  state.optimizer.erase(state.optimizer.begin());
  EXPECT_THAT(
      test::input_error([&] { trainer.restore(state); }),
      AllOf(HasSubstr("optimizer: this state does not fit"), HasSubstr("missing: fc2.bias.momentum_buffer")));
  state = trainer.state();
  state.weights.front().second = zeros({2});
  EXPECT_THAT(test::input_error([&] { trainer.restore(state); }), HasSubstr("conv1.weight is [2]"));
}

void expect_evaluation_of_one_network(const ScoreFunction& score) {
  Loader loader = make_trainer_loader(150, 100, 1, DType::f32, false);
  Loader training = make_trainer_loader(64, 16, 4);
  for (int replicas : {1, 2, 4}) {
    Trainer trainer{make_small_net, kSgd, {.replicas = replicas, .shards = 4, .seed = 1}};
    for (const Batch& batch : training.epoch(0)) {
      trainer.step(batch, sum_of_losses);
    }
    const Evaluation result = trainer.evaluate(loader, score, {.confusion = true});
    EXPECT_TRUE(trainer.module().is_training());

    trainer.module().eval();
    std::int64_t correct = 0;
    double loss = 0;
    std::vector<std::vector<std::int64_t>> confusion(10, std::vector<std::int64_t>(10));
    for (const Batch& batch : loader.epoch(0)) {
      const NoGradScope no_grad;
      const Variable scores = score(trainer.module(), batch.images());
      const Tensor guesses = argmax(scores.data(), 1);
      loss += cross_entropy(scores, batch.labels(), {.reduction = Reduction::sum}).item();
      for (std::int64_t i = 0; i < guesses.numel(); ++i) {
        const auto label = batch.labels().data<std::int64_t>()[i], guess = guesses.data<std::int64_t>()[i];
        correct += label == guess;
        ++confusion[static_cast<std::size_t>(label)][static_cast<std::size_t>(guess)];
      }
    }
    EXPECT_EQ(result.total, 150);
    EXPECT_EQ(result.correct, correct);
    EXPECT_EQ(result.confusion, confusion);
    for (std::size_t label = 0; label < 10; ++label) {
      const auto& row = confusion[label];
      const ClassCount expected{row[label], std::accumulate(row.begin(), row.end(), std::int64_t{0})};
      EXPECT_EQ(result.classes[label], expected) << label;
    }
    EXPECT_THAT(trainer.evaluate(loader, score).confusion, testing::IsEmpty());
    EXPECT_NEAR(result.loss, loss / 150, 1e-5);
    EXPECT_EQ(result.accuracy(), static_cast<double>(correct) / 150);
  }
}

TEST(Trainer, EvaluatesAsOneNetworkDoes) { expect_evaluation_of_one_network(&nn::Module::operator()); }
TEST(Trainer, EvaluatesAugmentationsAsOneNetworkDoes) {
  expect_evaluation_of_one_network(nn::average_over_augmentations);
  Loader loader = make_trainer_loader(150, 100, 1, DType::f32, false);
  Trainer trainer{make_small_net, kSgd, {.replicas = 1, .seed = 1}};
  EXPECT_NE(trainer.evaluate(loader).loss, trainer.evaluate(loader, nn::average_over_augmentations).loss);
}

/// A matrix of so many classes would take 20 GB in each replica.
TEST(Trainer, EvaluatesManyClassesWithoutAConfusionMatrix) {
  struct Net : nn::Module {
    nn::Linear fc{3, 50'000};
    Net() { add("fc", fc); }
    Variable forward(const Variable& image) override { return fc(mean(image, {.dims = {2, 3}})); }
  };
  Loader loader = make_trainer_loader(40, 16, 2, DType::f32, false);
  Trainer trainer{[] { return std::make_unique<Net>(); }, kSgd, {.replicas = 2, .shards = 2}};
  const Evaluation result = trainer.evaluate(loader, &nn::Module::operator(), {.confusion = true});
  EXPECT_EQ(result.total, 40);
  EXPECT_EQ(result.classes.size(), 50'000U);
  EXPECT_EQ(result.classes[3].total, 4);
  EXPECT_THAT(result.confusion, testing::IsEmpty());
}

TEST(Trainer, AnEvaluationWithOtherNumbersOfScoresIsRefused) {
  Loader loader = make_trainer_loader(40, 16, 1, DType::f32, false);
  Trainer trainer{make_small_net, kSgd, {.replicas = 1, .shards = 1}};
  int calls = 0;
  const auto score = [&](nn::Module&, const Variable& images) -> Variable {
    return zeros({images.size(0), ++calls == 1 ? 10 : 1000});
  };
  EXPECT_THAT(test::input_error([&] { trainer.evaluate(loader, score); }),
              HasSubstr("1000 scores a sample, and 10 before"));
}

TEST(Trainer, EvaluationChangesNothing) {
  const auto train = [](bool evaluates) {
    Loader loader = make_trainer_loader(64, 16, 2), test = make_trainer_loader(40, 16, 1, DType::f32, false);
    Trainer trainer{make_small_net, kSgd, {.replicas = 2, .shards = 2, .seed = 1}};
    for (const Batch& batch : loader.epoch(0)) {
      trainer.step(batch, sum_of_losses);
      if (evaluates) {
        trainer.evaluate(test);
      }
    }
    return trainer.weights_hash();
  };
  EXPECT_EQ(train(true), train(false));
}

TEST(Trainer, AFailingReplicaStopsItsPeersAndIsReported) {
  for (int replicas : {1, 2, 4}) {
    Loader loader = make_trainer_loader(64, 16, 4);
    Trainer trainer{make_small_net, kSgd, {.replicas = replicas, .shards = 4}};
    std::atomic<int> calls{0};
    const LossFunction failing = [&](nn::Module& net, const Batch& batch) {
      if (calls.fetch_add(1) == 6) {
        throw std::domain_error("out of paper");
      }
      return sum_of_losses(net, batch);
    };
    Batch batch;
    auto epoch = loader.epoch(0);
    ASSERT_TRUE(loader.next(batch));
    trainer.step(batch, failing);
    try {
      trainer.step(batch, failing);
      ADD_FAILURE() << "the second step passed";
    } catch (const std::domain_error& error) {
      EXPECT_STREQ(error.what(), "out of paper");
    }
    EXPECT_THAT(test::input_error([&] { trainer.step(batch, sum_of_losses); }),
                AllOf(HasSubstr("out of paper"), HasSubstr("make a new trainer")));
    EXPECT_EQ(trainer.steps(), 1);
  }
}

TEST(Trainer, AReplicaThatStaysAwayIsNamed) {
  Loader loader = make_trainer_loader(64, 16, 2);
  Trainer trainer{make_small_net, kSgd, {.replicas = 2, .shards = 2, .timeout = std::chrono::seconds(1)}};
  const LossFunction slow = [&](nn::Module& net, const Batch& batch) {
    if (nn::step_context().first_sample > 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2500));
    }
    return sum_of_losses(net, batch);
  };
  Batch batch;
  auto epoch = loader.epoch(0);
  ASSERT_TRUE(loader.next(batch));
  try {
    trainer.step(batch, slow);
    ADD_FAILURE() << "the step passed";
  } catch (const CommunicatorError& error) {
    EXPECT_THAT(error.what(), HasSubstr("rank 1 stayed away"));
  }
}

TEST(Trainer, RefusesWhatDoesNotFit) {
  Loader loader = make_trainer_loader(64, 16, 2), bf16 = make_trainer_loader(64, 16, 4, DType::bf16);
  Trainer trainer{make_small_net, kSgd, {.replicas = 2, .shards = 4}};
  Batch batch;
  auto epoch = loader.epoch(0);
  ASSERT_TRUE(loader.next(batch));
  EXPECT_THAT(test::input_error([&] { trainer.step(batch, sum_of_losses); }),
              HasSubstr("the batch has 2 shards, expected 4"));
  auto bf16_epoch = bf16.epoch(0);
  ASSERT_TRUE(bf16.next(batch));
  EXPECT_THAT(test::input_error([&] { trainer.step(batch, sum_of_losses); }),
              HasSubstr("images in bf16, expected f32"));
  EXPECT_THAT(test::input_error([&] { trainer.group("nowhere", kSgd); }), HasSubstr("nowhere"));
  EXPECT_THAT(test::input_error([] { Trainer([] { return nullptr; }, kSgd, {.replicas = 2}); }),
              HasSubstr("gave none"));
}

TEST(Trainer, ALossOfManyNumbersIsRefused) {
  Loader loader = make_trainer_loader(16, 16, 1);
  Trainer trainer{make_small_net, kSgd, {.replicas = 1, .shards = 1}};
  Batch batch;
  auto epoch = loader.epoch(0);
  ASSERT_TRUE(loader.next(batch));
  EXPECT_THAT(test::input_error([&] {
                trainer.step(batch, [](nn::Module& net, const Batch& b) { return net(b.images()); });
              }),
              HasSubstr("gave [16, 10], expected one number"));
}

TEST(Resolve, FillsInWhatIsLeftOpen) {
  const auto check = [](TrainerOptions asked, int replicas, int shards) {
    const TrainerOptions options = resolve(asked);
    EXPECT_EQ(options.replicas, replicas);
    EXPECT_EQ(options.shards, shards);
  };
  check({.replicas = 2}, 2, 2);
  check({.replicas = 2, .shards = 8}, 2, 8);
  check({.replicas = 4, .batch_size = 4}, 4, 4);
  check({.replicas = 1, .shards = 1, .batch_size = 3}, 1, 1);
  check({.shards = 1}, 1, 1);
  check({.batch_size = 3}, 1, 1);  // an odd batch splits no further
  const TrainerOptions open = resolve({});
  EXPECT_EQ(open.replicas, open.shards);
  EXPECT_LE(open.replicas, available_cores());
  EXPECT_GT(2 * open.replicas, available_cores());
}

TEST(Resolve, NamesWhatDoesNotFit) {
  const auto message = [](TrainerOptions asked) { return test::input_error([&] { resolve(asked); }); };
  EXPECT_THAT(message({.replicas = 1, .shards = 6}), HasSubstr("got 6 shards, expected a power of two"));
  EXPECT_THAT(message({.shards = 8, .batch_size = 12}),
              HasSubstr("a batch of 12 does not split into 8 equal shards"));
  EXPECT_THAT(message({.replicas = 3, .shards = 4}), HasSubstr("got 3 replicas, expected a power of two"));
  EXPECT_THAT(message({.replicas = 8, .shards = 4}), HasSubstr("got 8 replicas for 4 shards"));
  EXPECT_THAT(message({.replicas = 8, .batch_size = 4}),
              HasSubstr("got 8 replicas for 4 shards of a batch of 4"));
  EXPECT_THAT(message({.replicas = 3}), HasSubstr("got 3 replicas, expected a power of two"));
  EXPECT_THAT(message({.replicas = -1}), HasSubstr("no negative"));
  EXPECT_THAT(message({.shards = -2}), HasSubstr("no negative"));
  EXPECT_THAT(message({.batch_size = -4}), HasSubstr("no negative"));
  EXPECT_THAT(message({.dtype = DType::f64}), HasSubstr("got f64, expected f32 or bf16"));
  EXPECT_THAT(message({.devices = {}}), HasSubstr("expected the CPU, or one or more GPUs"));
  if (cuda_device_count() == 0) {
    EXPECT_THAT(message({.devices = {{Device::Kind::cuda, 0}}}),
                HasSubstr("cuda:0: " + cuda_unavailable_reason()));
  }
}

TEST(TrainerDeathTest, SaysThatAProcessorLacksBf16) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a process of its own: oneDNN looks at the variable once
  const auto ask = [] {
    setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE", 1);
    setenv("DNNL_MAX_CPU_ISA", "AVX512_CORE", 1);
    try {
      resolve({.dtype = DType::bf16});
    } catch (const InputError& error) {
      std::fputs(error.what(), stderr);
      std::exit(2);
    }
    std::exit(0);
  };
  EXPECT_EXIT(ask(), ::testing::ExitedWithCode(2), "processor with AVX-512 bf16; use f32");
}

TEST(Evaluation, ClassAccuracyIsThatOfItsSamples) {
  Evaluation result;
  result.classes = {{.correct = 3, .total = 4}, {.correct = 2, .total = 4}};
  EXPECT_DOUBLE_EQ(result.class_accuracy(0), 0.75);
  EXPECT_DOUBLE_EQ(result.class_accuracy(1), 0.5);
  EXPECT_THROW(result.class_accuracy(2), InputError);
}

}  // namespace
}  // namespace millrace
