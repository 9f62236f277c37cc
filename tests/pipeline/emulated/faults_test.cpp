// A GPU that is lost in the middle of a training: each call gives its error from then on.
#include <cstdlib>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include "emulator.h"
#include "tests/cuda_libraries/fake_nccl.h"
#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

/// Trains on `gpus` until the `nth` kernel of the second step goes wrong, says what was thrown, and ends as
/// programs do. A hang is ended by the alarm.
[[noreturn]] void train_until_lost(int gpus, int replicas, cudaError_t error, int nth) {
  alarm(60);
  fake_nccl::install();
  {
    Loader loader(open_dataset("synthetic:64"),
                  {.batch_size = 16, .dtype = DType::u8, .shards = 4, .threads = 1});
    std::vector<Device> devices;
    for (int i = 0; i < gpus; ++i) {
      devices.push_back({Device::Kind::cuda, i});
    }
    Trainer trainer{make_small_net, kSgd, {.replicas = replicas, .shards = 4, .devices = devices}};
    Batch batch;
    auto epoch = loader.epoch(0);
    loader.next(batch);
    std::vector<StepResult> results = {trainer.step(batch, sum_of_losses)};
    const auto expect_thrown = [](const char* what, const auto& call) {
      try {
        call();
        fmt::print(stderr, "{}: nothing was thrown\n", what);
        std::_Exit(4);
      } catch (const std::exception& thrown) {
        fmt::print(stderr, "{}: {}\n", what, thrown.what());
      }
    };
    emulator::fault_kernel(error, nth);
    expect_thrown("training", [&] {
      for (int i = 0; i < 5; ++i) {  // the host runs ahead of the GPU until a loss is read
        results.push_back(trainer.step(batch, sum_of_losses));
        static_cast<void>(double{results.back().loss});
      }
    });
    expect_thrown("the next step", [&] { trainer.step(batch, sum_of_losses); });
    expect_thrown("the weights", [&] { trainer.weights_hash(); });
    expect_thrown("the last loss", [&] { static_cast<void>(double{results.back().loss}); });
  }
  std::exit(3);
}

class EmulatedFaults : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

const std::string kIllegal =
    "got CUDA error cudaErrorIllegalAddress .*on cuda:0; it comes from this or from earlier work on the "
    "device: set "
    "CUDA_LAUNCH_BLOCKING=1";

TEST_F(EmulatedFaults, ALostGpuEndsATrainingWithAMessage) {
  const std::string expected =
      "training: .*" + kIllegal + ".*\n(.*\n)*the next step: .*\n(.*\n)*the weights: .*" + kIllegal;
  for (const int nth : {1, 20, 70}) {
    EXPECT_EXIT(train_until_lost(1, 1, cudaErrorIllegalAddress, nth), testing::ExitedWithCode(3), expected);
  }
  EXPECT_EXIT(train_until_lost(1, 1, cudaErrorMisalignedAddress, 30), testing::ExitedWithCode(3),
              "training: .*cudaErrorMisalignedAddress .*it comes from this or from earlier work");
}

TEST_F(EmulatedFaults, ReplicasOnALostGpuEndTogether) {
  EXPECT_EXIT(train_until_lost(1, 4, cudaErrorIllegalAddress, 50), testing::ExitedWithCode(3),
              "training: .*" + kIllegal);
}

TEST_F(EmulatedFaults, OneLostGpuOfTwoEndsBoth) {
  EXPECT_EXIT(train_until_lost(2, 2, cudaErrorIllegalAddress, 50), testing::ExitedWithCode(3),
              "training: .*got CUDA error cudaErrorIllegalAddress");
}

}  // namespace
}  // namespace millrace
