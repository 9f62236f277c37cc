// What only an emulated GPU can show: that nothing waits, and several GPUs.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>

#include "emulator.h"
#include "nn/layers/containers.h"
#include "nn/layers/pooling.h"
#include "nn/layers/shape.h"
#include "tensor/gpu/engine_choices.h"
#include "tests/cuda_libraries/fake_nccl.h"
#include "tests/distributed/processes/process_threads.h"
#include "tests/pipeline/emulated/gpus.h"
#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

[[maybe_unused]] const int kFourDevices = setenv("MILLRACE_EMULATED_GPUS", "4", 1);

/// What a failed step left enqueued runs on libraries that are taken down at the process's end.
class WorkEnds : public testing::Environment {
  void TearDown() override {
    int devices = 0;
    cudaGetDeviceCount(&devices);
    for (int device = 0; device < devices; ++device) {
      cudaSetDevice(device);
      cudaDeviceSynchronize();
    }
  }
};
[[maybe_unused]] const auto* const kWorkEnds = testing::AddGlobalTestEnvironment(new WorkEnds);

Loader make_loader() {
  return Loader(open_dataset("synthetic:64"),
                {.batch_size = 16, .dtype = DType::u8, .shards = 4, .threads = 1});
}

TEST(EmulatedTraining, AStepWaitsForNothing) {
  for (const DType dtype : {DType::f32, DType::f16}) {
    for (const int replicas : {1, 4}) {
      Loader loader = make_loader();
      Trainer trainer{
          make_small_net, kSgd, {.replicas = replicas, .shards = 4, .devices = gpus(1), .dtype = dtype}};
      Batch batch;
      auto epoch = loader.epoch(0);
      ASSERT_TRUE(loader.next(batch));
      trainer.step(batch, sum_of_losses);
      trainer.step(batch, sum_of_losses);
      const std::int64_t before = emulator::counts().synchronizations;
      std::vector<StepResult> results;
      for (int i = 0; i < 5; ++i) {
        results.push_back(trainer.step(batch, sum_of_losses));
      }
      EXPECT_EQ(emulator::counts().synchronizations, before)
          << name_of(dtype) << ", " << replicas << " replicas";
      EXPECT_GT(double{results.back().loss}, 0);
      EXPECT_TRUE(results.back().loss.ready());
    }
  }
}

std::string trained_hash(std::vector<Device> devices, int replicas, SumOrder sum_order = SumOrder::tree) {
  Loader loader = make_loader();
  Trainer trainer{make_small_net,
                  kSgd,
                  {.replicas = replicas, .shards = 4, .devices = std::move(devices), .sum_order = sum_order}};
  for (const Batch& batch : loader.epoch(0)) {
    trainer.step(batch, sum_of_losses);
  }
  return trainer.weights_hash();
}

TEST(EmulatedTraining, SeveralGpusGiveTheBitsOfOne) {
  fake_nccl::install();
  const std::string one = trained_hash(gpus(1), 1);
  EXPECT_EQ(trained_hash(gpus(2), 2), one);
  EXPECT_EQ(trained_hash(gpus(4), 4), one);
  EXPECT_EQ(trained_hash({gpus(2)[1]}, 2), one) << "on the second GPU alone";
  EXPECT_NE(trained_hash(gpus(4), 4, SumOrder::engine), "");
  EXPECT_THAT(fake_nccl::misuses(), testing::IsEmpty());
}

/// After an epoch on that many processes, which are threads here and see the GPUs `seen`; the same in all.
std::string hash_over_processes(int count, const std::vector<Device>& seen, int replicas, DType dtype) {
  std::vector<std::string> hashes(static_cast<std::size_t>(count));
  const auto errors = on_process_threads(count, {}, [&](const std::shared_ptr<ProcessGroup>& processes) {
    Trainer trainer{
        make_small_net,
        kSgd,
        {.replicas = replicas, .shards = 4, .processes = processes, .devices = seen, .dtype = dtype}};
    const ShardRange shards = local_shards(trainer.options());
    Loader loader(open_dataset("synthetic:64"), {.batch_size = 16,
                                                 .dtype = DType::u8,
                                                 .shards = 4,
                                                 .first_shard = shards.first,
                                                 .local_shards = shards.count,
                                                 .threads = 1});
    for (const Batch& batch : loader.epoch(0)) {
      trainer.step(batch, sum_of_losses);
    }
    hashes[static_cast<std::size_t>(processes->rank())] = trainer.weights_hash();
  });
  EXPECT_THAT(errors, testing::Each(""));
  EXPECT_THAT(hashes, testing::Each(hashes[0]));
  return hashes[0];
}

TEST(EmulatedTraining, ProcessesGiveTheBitsOfOne) {
  fake_nccl::install();
  for (const DType dtype : {DType::f32, DType::f16}) {
    const std::string one = hash_over_processes(1, gpus(1), 1, dtype);
    for (const int processes : {2, 3, 4}) {
      EXPECT_EQ(hash_over_processes(processes, gpus(4), 1, dtype), one)
          << name_of(dtype) << ", " << processes << " processes";
    }
    EXPECT_EQ(hash_over_processes(2, gpus(4), 2, dtype), one) << name_of(dtype) << ", two GPUs each";
  }
  EXPECT_THAT(fake_nccl::misuses(), testing::IsEmpty());
}

TEST(EmulatedTraining, ProcessesTakeOverTheEnginesOfRank0) {
  fake_nccl::install();
  // Each of the two, which share them here, takes all over once at the beginning, where there are any.
  EngineChoices one("");
  one.add("of this test", {});
  for (int round = 0; round < 2; ++round) {
    const std::uint64_t before = engine_choices().generation();
    const int exchanges = engine_choices().size() > 0 ? 1 : 0;
    hash_over_processes(2, gpus(2), 1, DType::f32);
    EXPECT_EQ(engine_choices().generation(), before + 2 * exchanges);
    engine_choices().import(one.bytes());
  }
}

/// All that a training keeps, on so many GPUs of one process: with more than one, the first step is
/// rehearsed.
TrainerState trained_state(int count, const nn::OptimizerOptions& optimizer, DType dtype) {
  Loader loader = make_loader();
  Trainer trainer{make_small_net,
                  optimizer,
                  {.replicas = count,
                   .shards = 4,
                   .devices = gpus(count),
                   .dtype = dtype,
                   .lookahead = nn::LookaheadOptions{.every = 2}}};
  for (const Batch& batch : loader.epoch(0)) {
    trainer.step(batch, sum_of_losses);
  }
  return trainer.state();
}

void expect_equal(const nn::StateDict& got, const nn::StateDict& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    const auto& [name, tensor] = expected[i];
    EXPECT_EQ(got[i].first, name);
    EXPECT_EQ(std::memcmp(got[i].second.contiguous().raw(), tensor.contiguous().raw(), tensor.bytes()), 0)
        << name;
  }
}

TEST(EmulatedTraining, ARehearsedStepLeavesAllAsItWas) {
  fake_nccl::install();
  for (const nn::OptimizerOptions& optimizer :
       {nn::OptimizerOptions(kSgd), nn::OptimizerOptions(nn::AdamWOptions{}),
        nn::OptimizerOptions(nn::RmsPropOptions{.momentum = 0.5, .centered = true})}) {
    for (const DType dtype : {DType::f32, DType::f16}) {
      SCOPED_TRACE(nn::describe(optimizer) + " in " + std::string(name_of(dtype)));
      const TrainerState one = trained_state(1, optimizer, dtype), two = trained_state(2, optimizer, dtype);
      EXPECT_EQ(two.steps, one.steps);
      expect_equal(two.weights, one.weights);
      expect_equal(two.optimizer, one.optimizer);
      expect_equal(two.average, one.average);
    }
  }
  EXPECT_THAT(fake_nccl::misuses(), testing::IsEmpty());
}

/// At its first launch a kernel is loaded, for which CUDA may wait until the GPU is idle: for a sum, then,
/// that another thread would have to join.
TEST(EmulatedTraining, AllKernelsAreLoadedBeforeTheFirstSum) {
  for (const DType dtype : {DType::f32, DType::f16}) {
    std::int64_t loaded = -1;
    std::atomic<int> passes = 0;
    fake_nccl::install({.seen = [&](std::string_view call) {
      if (call != "ncclBroadcast" && loaded < 0) {
        loaded = emulator::counts().loads;
      }
    }});
    emulator::unload();
    Loader loader = make_loader();
    Trainer trainer{make_small_net,
                    kSgd,
                    {.replicas = 2,
                     .shards = 4,
                     .devices = gpus(2),
                     .dtype = dtype,
                     .lookahead = nn::LookaheadOptions{.every = 2},
                     .bucket_bytes = 256}};
    const LossFunction counted = [&](nn::Module& net, const Batch& batch) {
      ++passes;
      return sum_of_losses(net, batch);
    };
    for (const Batch& batch : loader.epoch(0)) {
      trainer.step(batch, counted);
    }
    EXPECT_GT(loaded, 0) << name_of(dtype);
    EXPECT_EQ(emulator::counts().loads, loaded) << name_of(dtype);
    EXPECT_EQ(passes, 2 + 4 * 4) << name_of(dtype)
                                 << ": once for each replica, and four steps on four shards";
  }
  fake_nccl::install();
}

/// Until the step's first shard is there; what precedes the first work of all is no pause.
TEST(EmulatedTraining, BehindARehearsalAGpuIsIdle) {
  fake_nccl::install();
  for (const int count : {1, 2}) {
    Loader loader = make_loader();
    Batch batch;
    auto epoch = loader.epoch(0);
    ASSERT_TRUE(loader.next(batch));
    Trainer trainer{make_small_net, kSgd, {.replicas = count, .shards = 4, .devices = gpus(count)}};
    std::ignore = double{trainer.step(batch, sum_of_losses).loss};
    EXPECT_EQ(trainer.idle_seconds() > 0, count > 1) << trainer.idle_seconds() << " s, " << count << " GPUs";
  }
}

/// Of twelve equal layers, each larger than the least bucket; three are a quarter.
std::unique_ptr<nn::Module> make_equal_layers() {
  auto net = std::make_unique<nn::Sequential>();
  net->emplace<nn::AdaptiveAvgPool2d>(Size2{8, 16});
  net->emplace<nn::Flatten>();
  for (int i = 0; i < 12; ++i) {
    net->emplace<nn::Linear>(384, 384);
  }
  return net;
}

TEST(EmulatedTraining, GpusSumAQuarterOfTheGradientsAtATime) {
  const auto sums = std::make_shared<std::atomic<int>>(0);
  fake_nccl::install({.seen = [sums](std::string_view call) { *sums += call == "ncclAllReduce" ? 1 : 0; }});
  Loader loader = make_loader();
  Batch batch;
  auto epoch = loader.epoch(0);
  ASSERT_TRUE(loader.next(batch));
  Trainer trainer{make_equal_layers,
                  nn::SgdOptions{},
                  {.replicas = 2, .shards = 4, .devices = gpus(2), .sum_order = SumOrder::engine}};
  *sums = 0;
  std::ignore = double{trainer.step(batch, sum_of_losses).loss};
  EXPECT_EQ(*sums, 2 * 4) << "four by each of two";
  fake_nccl::install();
}

TEST(EmulatedTraining, PinnedMemoryIsTakenAtTheStart) {
  Loader loader = make_loader();
  Batch batch;
  auto epoch = loader.epoch(0);
  ASSERT_TRUE(loader.next(batch));
  Trainer trainer{make_small_net, kSgd, {.replicas = 2, .shards = 4, .devices = gpus(1)}};
  const std::int64_t before = emulator::counts().pinned;
  std::vector<StepResult> results;
  std::vector<double> losses;
  for (int i = 0; i < 70; ++i) {  // some are never read, some late: no place is used twice at a time
    results.push_back(trainer.step(batch, sum_of_losses));
    if (i >= 40) {
      losses.push_back(results[static_cast<std::size_t>(i - 40)].loss);
    }
  }
  EXPECT_EQ(emulator::counts().pinned, before);
  Trainer again{make_small_net, kSgd, {.replicas = 2, .shards = 4, .devices = gpus(1)}};
  for (const double loss : losses) {
    EXPECT_EQ(double{again.step(batch, sum_of_losses).loss}, loss);
  }
}

/// Whoever keeps all losses unread has them all the same.
TEST(EmulatedTraining, UnreadLossesAreKept) {
  Loader loader = make_loader();
  Batch batch;
  auto epoch = loader.epoch(0);
  ASSERT_TRUE(loader.next(batch));
  Trainer unread{make_small_net, kSgd, {.replicas = 1, .shards = 4, .devices = gpus(1)}};
  Trainer read{make_small_net, kSgd, {.replicas = 1, .shards = 4, .devices = gpus(1)}};
  std::vector<StepResult> results;
  for (int i = 0; i < 150; ++i) {
    results.push_back(unread.step(batch, sum_of_losses));
  }
  for (int i = 0; i < 150; ++i) {
    const double loss = read.step(batch, sum_of_losses).loss;
    EXPECT_EQ(double{results[static_cast<std::size_t>(i)].loss}, loss) << i;
  }
}

TEST(EmulatedTraining, ProcessesNeedAGpuForEachReplica) {
  const auto errors = on_process_threads(4, {}, [&](const std::shared_ptr<ProcessGroup>& processes) {
    resolve({.replicas = 1, .shards = 4, .processes = processes, .devices = gpus(2)});
  });
  EXPECT_THAT(errors,
              testing::Each(testing::HasSubstr("got 4 processes on this machine with 1 replica each")));
}

TEST(EmulatedTraining, WhatIsResolvedStays) {
  const auto errors = on_process_threads(2, {}, [&](const std::shared_ptr<ProcessGroup>& processes) {
    for (const auto& seen : {gpus(4), gpus(2), gpus(1)}) {
      const TrainerOptions once =
          resolve({.replicas = 2, .shards = 4, .processes = processes, .devices = seen});
      EXPECT_EQ(resolve(once).devices, once.devices);
      EXPECT_EQ(once.devices[0].index, seen.size() == 4 ? 2 * processes->rank() : 0);
    }
  });
  EXPECT_THAT(errors, testing::Each(""));
}

TEST(EmulatedTraining, GivesAllMemoryBack) {
  trained_hash(gpus(1), 2);
  const emulator::Counts before = emulator::counts();
  trained_hash(gpus(1), 2);
  EXPECT_EQ(emulator::counts().allocations, before.allocations);
  EXPECT_EQ(emulator::counts().pinned, before.pinned);
  EXPECT_EQ(emulator::counts().events, before.events);
}

}  // namespace
}  // namespace millrace
