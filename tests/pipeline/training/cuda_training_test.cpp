// Training on a GPU, or on an emulated one.
#include <cmath>
#include <cstring>
#include <gmock/gmock.h>

#include "nn/state.h"
#include "pipeline/training/feeder.h"
#include "tensor/gpu/arithmetic.h"
#include "tensor/gpu/engine_choices.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/loss_scale.h"
#include "tensor/kernels/optimizer.h"
#include "tests/base/temporary_folder.h"
#include "tests/pipeline/training/small_loader.h"
#include "tests/pipeline/training/small_net.h"
#include "tests/tensor/gpu/bounds.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

class CudaTraining : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) {
      GTEST_SKIP() << cuda_unavailable_reason();
    }
  }
};

struct Run {
  int replicas = 1, shards = 4;
  DType dtype = DType::f32, feed = DType::u8;
  Device device = kGpu;
  std::int64_t bucket_bytes = 0;
};

/// Two epochs of three batches; the last one has empty shards. Losses are read when all is enqueued.
Trained train(const Run& run) {
  Loader loader = make_loader(run.feed, run.shards);
  Trainer trainer{make_small_net,
                  kSgd,
                  {.replicas = run.replicas,
                   .shards = run.shards,
                   .devices = {run.device},
                   .dtype = run.dtype,
                   .seed = 5,
                   .bucket_bytes = run.bucket_bytes}};
  std::vector<StepResult> results;
  for (int epoch = 0; epoch < 2; ++epoch) {
    for (const Batch& batch : loader.epoch(epoch)) {
      results.push_back(trainer.step(batch, sum_of_losses));
    }
  }
  Trained trained{.hash = trainer.weights_hash()};
  for (const StepResult& result : results) {
    trained.losses.push_back(result.loss);
  }
  return trained;
}

TEST_F(CudaTraining, TheTreeOfSumsAllowsDeterministicEnginesAlone) {
  const GpuArithmetic before = gpu_arithmetic();
  for (const SumOrder sum_order : {SumOrder::tree, SumOrder::engine}) {
    set_gpu_arithmetic({.tf32 = true, .deterministic = sum_order == SumOrder::engine});
    const Trainer trainer{
        make_small_net, kSgd, {.replicas = 1, .shards = 1, .devices = {kGpu}, .sum_order = sum_order}};
    EXPECT_EQ(gpu_arithmetic().deterministic, sum_order == SumOrder::tree);
    EXPECT_TRUE(gpu_arithmetic().tf32);
  }
  set_gpu_arithmetic(before);
}

/// In a row on the small network's way to a loss: its convolution's sums (three channels of 3x3), and its
/// linear layers'. In training also the batch norm's, over the 15x15 places of a shard's four images.
constexpr int kLayerSums = 3 * 3 * 3 + 9 * 3 * 3 + 21, kNormSums = 4 * 15 * 15;

/// Each step passes through sums of all layers, then through those of the gradients, which are no longer.
TEST_F(CudaTraining, LearnsAsTheCpuDoes) {
  const Trained cpu = train({.feed = DType::f32, .device = kCpu}), gpu = train({});
  ASSERT_EQ(gpu.losses.size(), cpu.losses.size());
  for (std::size_t i = 0; i < cpu.losses.size(); ++i) {
    const double bound = test::rounded(DType::f32, 2 * (kLayerSums + kNormSums) * static_cast<double>(i + 1));
    EXPECT_NEAR(gpu.losses[i], cpu.losses[i], bound * cpu.losses[i]) << "step " << i;
  }
}

/// The weights of airbench94, each as far as one step moved it.
std::vector<std::pair<std::string, std::vector<double>>> moved_by_a_step(Device device, DType dtype) {
  Loader loader = make_loader(device.is_cuda() ? DType::u8 : dtype, 1);
  Trainer trainer{[] { return nn::make_model("airbench94"); },
                  nn::SgdOptions{.learning_rate = 1},
                  {.replicas = 1, .shards = 1, .devices = {device}, .dtype = dtype, .seed = 5}};
  const TrainerState before = trainer.state();
  loader.epoch(0);
  Batch batch;
  EXPECT_TRUE(loader.next(batch));
  trainer.step(batch, sum_of_losses);
  const TrainerState after = trainer.state();
  std::vector<std::pair<std::string, std::vector<double>>> moved;
  for (std::size_t i = 0; i < after.weights.size(); ++i) {
    const auto& [name, weight] = after.weights[i];
    const Tensor step = (weight - before.weights[i].second).to(DType::f64).contiguous();
    moved.emplace_back(name, std::vector(step.data<double>(), step.data<double>() + step.numel()));
  }
  return moved;
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    squares += (a[i] - b[i]) * (a[i] - b[i]);
  }
  return std::sqrt(squares);
}

/// Both devices round to bf16 and sum in f32, each in its own order: so the GPU's step lies about as far from
/// the one in f32 as the CPU's does, which is up to a fifth of it, since max pooling then takes other places.
/// For two values that the CPU stores in a layer (product, activation) the GPU stores three (the norm). The
/// length of 64 independent errors, as many as a layer has channels, spreads by the root of 1 / 128. In f32
/// the longest sum is over the places of the first layer's 16 images.
TEST_F(CudaTraining, AStepOfAirbench94InBf16IsTheCpus) {
  const auto exact = moved_by_a_step(kCpu, DType::f32), cpu = moved_by_a_step(kCpu, DType::bf16),
             gpu = moved_by_a_step(kGpu, DType::bf16);
  ASSERT_EQ(gpu.size(), exact.size());
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const auto& [name, step] = exact[i];
    const double size = distance(step, std::vector<double>(step.size()));
    const double rounding = distance(cpu[i].second, step);
    const double most = test::step_bound(test::rounded(DType::bf16, 2 * test::kStoredInAPass));
    EXPECT_LE(rounding, most * size) << name << ": too much for the next line to say anything";
    const double stored = std::sqrt(3.0 / 2), spread = 4 / std::sqrt(2 * 64);
    const double in_f32 = test::rounded(DType::f32, 16 * 31 * 31);
    EXPECT_LE(distance(gpu[i].second, step), stored * (1 + spread) * rounding + in_f32 * size) << name;
  }
}

TEST_F(CudaTraining, EqualShardsGiveEqualBitsOnAnyNumberOfReplicas) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    const Trained one = train({.dtype = dtype});
    EXPECT_EQ(train({.replicas = 4, .dtype = dtype}), one) << name_of(dtype);
    EXPECT_EQ(train({.replicas = 2, .dtype = dtype, .bucket_bytes = 256}), one) << name_of(dtype);
    EXPECT_NE(train({.shards = 2, .dtype = dtype}).hash, one.hash) << "shards must be seen in the bits";
  }
}

TEST_F(CudaTraining, WhatTravelsChangesNoBit) {
  EXPECT_EQ(train({.feed = DType::f32}), train({.feed = DType::u8}));
  EXPECT_EQ(train({.dtype = DType::bf16, .feed = DType::bf16}), train({.dtype = DType::bf16}));
  EXPECT_EQ(train({.dtype = DType::f16, .feed = DType::f32}), train({.dtype = DType::f16}));
}

TEST_F(CudaTraining, EvaluatesAsTheCpuDoes) {
  Loader loader(open_dataset("synthetic:150", {.train = false}), {.batch_size = 100,
                                                                  .dtype = DType::f32,
                                                                  .order = {Order::sequential},
                                                                  .tail = Tail::pad,
                                                                  .shards = 2,
                                                                  .threads = 1});
  Trainer cpu{make_small_net, kSgd, {.replicas = 1, .shards = 2}};
  Trainer gpu{make_small_net, kSgd, {.replicas = 2, .shards = 2, .devices = {kGpu}}};
  const Evaluation expected = cpu.evaluate(loader, &nn::Module::operator(), {.confusion = true}),
                   got = gpu.evaluate(loader, &nn::Module::operator(), {.confusion = true});
  EXPECT_EQ(got.total, expected.total);
  EXPECT_EQ(got.confusion, expected.confusion);
  EXPECT_NEAR(got.loss, expected.loss,
              test::rounded(DType::f32, kLayerSums + test::kPointwise) * expected.loss);
  EXPECT_EQ(gpu.weights_hash(), cpu.weights_hash());
}

TEST_F(CudaTraining, StateGoesOverToTheCpuAndBack) {
  Loader loader = make_loader(DType::f32, 2);
  Trainer gpu{make_small_net, kSgd, {.replicas = 2, .shards = 2, .devices = {kGpu}}};
  Trainer cpu{make_small_net, kSgd, {.replicas = 1, .shards = 2, .seed = 9}};
  for (const Batch& batch : loader.epoch(0)) {
    gpu.step(batch, sum_of_losses);
  }
  cpu.restore(gpu.state());
  EXPECT_EQ(cpu.weights_hash(), gpu.weights_hash());
  Trainer again{make_small_net, kSgd, {.replicas = 2, .shards = 2, .devices = {kGpu}}};
  again.restore(cpu.state());
  for (const Batch& batch : loader.epoch(1)) {
    EXPECT_EQ(double{again.step(batch, sum_of_losses).loss}, double{gpu.step(batch, sum_of_losses).loss});
  }
  EXPECT_EQ(again.weights_hash(), gpu.weights_hash());
}

/// The tutorial's loop, with nothing but `to` to move it.
TEST_F(CudaTraining, AHandWrittenLoopWorks) {
  nn::manual_seed(1);
  SmallNet net;
  net.to(Device::parse("cuda"));
  nn::Sgd sgd(net, kSgd);
  Loader loader = make_loader(DType::f32, 1);
  double first = 0, last = 0;
  for (int epoch = 0; epoch < 6; ++epoch) {
    double sum = 0;
    for (const Batch& batch : loader.epoch(0)) {
      sgd.zero_grad();
      const Variable loss = cross_entropy(net(batch.images().to(kGpu)), batch.labels().to(kGpu));
      loss.backward();
      sgd.step();
      sum += loss.item();
    }
    (epoch == 0 ? first : last) = sum;
  }
  EXPECT_LT(last, first);
}

TEST_F(CudaTraining, F16LearnsWithItsLossScaled) {
  Loader loader = make_loader(DType::u8, 2, 32);
  Trainer trainer{make_small_net, kSgd, {.replicas = 2, .shards = 2, .devices = {kGpu}, .dtype = DType::f16}};
  std::vector<double> losses;
  for (int epoch = 0; epoch < 12; ++epoch) {
    double sum = 0;
    for (const Batch& batch : loader.epoch(0)) {
      sum += trainer.step(batch, sum_of_losses).loss;
    }
    losses.push_back(sum);
  }
  EXPECT_LT(losses.back(), 0.9 * losses.front());
}

/// Sums over many samples are finite with the first scale, and are not lost below what f16 holds. Stored in
/// f16 are the images, three layers' weights and results, the norm's and the dropout's, and as many
/// gradients.
TEST_F(CudaTraining, F16TakesItsFirstStep) {
  for (const int samples : {128, 1024}) {
    std::vector<Tensor> first_steps;
    for (const DType dtype : {DType::f32, DType::f16}) {
      Loader loader(open_dataset("synthetic:" + std::to_string(samples)),
                    {.batch_size = samples, .transforms = "normalize", .dtype = DType::u8, .threads = 1});
      Trainer trainer{make_small_net, kSgd, {.devices = {kGpu}, .dtype = dtype, .seed = 5}};
      const nn::StateDict before = trainer.state().weights;
      for (const Batch& batch : loader.epoch(0)) {
        trainer.step(batch, sum_of_losses);
        const Tensor weight = trainer.state().weights[0].second;
        first_steps.push_back(weight - before[0].second);
        trainer.step(batch, sum_of_losses);
        trainer.step(batch, sum_of_losses);
      }
      const TrainerState state = trainer.state();
      if (dtype == DType::f16) {
        const auto& [name, scale] = state.optimizer.back();
        ASSERT_EQ(name, "loss_scale");
        EXPECT_EQ(scale.at({LossScale::good_steps}), 3) << samples;
        EXPECT_EQ(scale.at({LossScale::scale}), LossScale::kFirst) << samples;
      }
    }
    const Tensor error = first_steps[1] - first_steps[0];
    const double size = std::sqrt(sum(first_steps[0] * first_steps[0]).item());
    EXPECT_LT(std::sqrt(sum(error * error).item()), test::step_bound(test::rounded(DType::f16, 2 * 9)) * size)
        << samples;
  }
}

TEST_F(CudaTraining, WhatGpusGoOnFromIsPartOfTheState) {
  const TrainerOptions options{.replicas = 2, .shards = 2, .devices = {kGpu}, .dtype = DType::f16};
  Loader loader = make_loader(DType::u8, 2, 32);
  Trainer first{make_small_net, kSgd, options}, second{make_small_net, kSgd, options};
  TrainerState state = first.state();
  const auto scale_of = [](TrainerState& of) -> Tensor& {
    return std::ranges::find(of.optimizer, "loss_scale", &std::pair<std::string, Tensor>::first)->second;
  };
  scale_of(state).select(0, LossScale::scale).fill_(512);
  EngineChoices choices("");
  const EngineChoice choice{.engine = 3, .knobs = {{1, 2}}};
  choices.add("of this test", choice);
  state.engines = choices.bytes();
  second.restore(state);
  EXPECT_EQ(engine_choices().find("of this test"), choice);
  for (const Batch& batch : loader.epoch(0)) {
    second.step(batch, sum_of_losses);
    break;
  }
  TrainerState now = second.state();
  EXPECT_EQ(scale_of(now).at({LossScale::scale}), 512);
  EXPECT_THAT(now.engines, HasSubstr("of this test"));
}

/// The loader, which waits for the copies of its slabs, looks first.
TEST_F(CudaTraining, ALabelOutOfRangeIsToldToWhoeverReadsTheLoss) {
  Loader loader = make_loader(DType::u8, 2, 3200);
  Trainer trainer{make_small_net, kSgd, {.replicas = 2, .shards = 2, .devices = {kGpu}}};
  const LossFunction bad = [](nn::Module& net, const Batch& batch) {
    const Tensor labels = full(batch.labels().shape(), 10, {.dtype = DType::i64, .device = kGpu});
    return cross_entropy(net(batch.images()), labels, {.reduction = Reduction::sum});
  };
  Batch batch;
  const auto epoch = loader.epoch(0);
  ASSERT_TRUE(loader.next(batch));
  const StepResult result = trainer.step(batch, bad);
  while (loader.next(batch)) {  // each slab is filled anew several times
  }
  EXPECT_THAT(test::input_error([&] { std::ignore = double{result.loss}; }),
              HasSubstr("has label 10, expected 0 to 9"));
}

TEST_F(CudaTraining, AFailingReplicaStopsItsPeers) {
  Loader loader = make_loader(DType::u8, 4);
  Trainer trainer{make_small_net, kSgd, {.replicas = 4, .shards = 4, .devices = {kGpu}}};
  Batch batch;
  auto epoch = loader.epoch(0);
  ASSERT_TRUE(loader.next(batch));
  const LossFunction failing = [](nn::Module& net, const Batch& b) {
    return b.shard(0).first_position == 4 ? throw std::domain_error("out of paper") : sum_of_losses(net, b);
  };
  EXPECT_THROW(trainer.step(batch, failing), std::domain_error);
  EXPECT_THAT(test::input_error([&] { trainer.step(batch, sum_of_losses); }), HasSubstr("out of paper"));
}

/// On the CPU always, on a GPU where there is one.
std::vector<Device> all_devices() {
  std::vector<Device> devices{kCpu};
  if (cuda_device_count() > 0) {
    devices.push_back(kGpu);
  }
  return devices;
}

TEST(LossScaling, HalvesAndSkipsOnOverflowAndDoublesAfterGoodSteps) {
  for (const Device device : all_devices()) {
    Tensor state = tensor({1, 1, LossScale::kFirst, 0}).to(device);
    Tensor gradients = ones({1000}, {.device = device});
    const auto update = [&] { MILLRACE_LAUNCH(device, update_loss_scale, gradients, state); };
    const auto at = [&](LossScale::Place place) { return state.at({place}); };
    update();
    EXPECT_EQ(at(LossScale::apply), 1);
    EXPECT_EQ(at(LossScale::inverse), 1 / LossScale::kFirst);
    EXPECT_EQ(at(LossScale::good_steps), 1);
    for (const double bad : {INFINITY, -INFINITY, NAN}) {
      const double before = at(LossScale::scale);
      gradients.set({999}, bad);
      update();
      EXPECT_EQ(at(LossScale::apply), 0) << bad;
      EXPECT_EQ(at(LossScale::scale), before / 2) << bad;
      EXPECT_EQ(at(LossScale::good_steps), 0);
      EXPECT_EQ(gradients.at({0}), 0) << "what did not overflow must not be used";
      gradients.fill_(1);
    }
    state.set({LossScale::good_steps}, LossScale::kGrowth - 1);
    update();
    EXPECT_EQ(at(LossScale::scale), LossScale::kFirst / 4);
    EXPECT_EQ(at(LossScale::inverse), 8 / LossScale::kFirst) << "of the scale that these gradients had";
    EXPECT_EQ(at(LossScale::good_steps), 0);
  }
}

TEST(LossScaling, AStepIsSkippedOrScaledByWhatLiesOnTheDevice) {
  for (const Device device : all_devices()) {
    for (const double apply : {0.0, 1.0}) {
      Tensor weights = ones({21}, {.device = device}), gradients = full({21}, 8, {.device = device}),
             momentum = full({21}, 2, {.device = device});
      const Tensor control = tensor({apply, 0.25}).to(device);
      const SgdStep step{.gradient = {.gradient_scale = 0.5, .control = control.data<float>()},
                         .learning_rate = 1,
                         .momentum = 0.5};
      MILLRACE_LAUNCH(device, sgd_step, weights, gradients, momentum, step);
      EXPECT_EQ(momentum.at({20}), 2);  // either way: 0.5 * 2 + 8 * 0.5 * 0.25
      EXPECT_EQ(weights.at({20}), apply == 0 ? 1 : -1);
    }
  }
}

TEST(Feed, BytesTravelToGpusUnlessTransformsChangeNumbers) {
  EXPECT_EQ(feed_type(kCpu, DType::bf16, kTransforms), DType::bf16);
  EXPECT_EQ(feed_type(kGpu, DType::bf16, kTransforms), DType::u8);
  EXPECT_EQ(feed_type(kGpu, DType::bf16, "cutout:8,normalize"), DType::bf16);
  EXPECT_EQ(feed_type(kGpu, DType::f16, "normalize,mixup:0.2"), DType::f32);
  EXPECT_THAT(test::input_error([] { resolve({.dtype = DType::f16}); }),
              HasSubstr("got f16, in which the CPU does not compute; use bf16 or f32"));
}

}  // namespace
}  // namespace millrace
