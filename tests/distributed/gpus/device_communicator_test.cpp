#include "distributed/gpus/device_communicator.h"

#include <cuda_runtime_api.h>

#include "distributed/group/group.h"
#include "tests/distributed/gpus/on_gpus.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

constexpr Device kGpu{Device::Kind::cuda, 0};
Device on_gpu(int /*rank*/) { return kGpu; }
auto group_of(int size) { return make_device_group(size, kGpu); }

class DeviceCommunicator : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) {
      GTEST_SKIP() << cuda_unavailable_reason();
    }
  }
};

TEST_F(DeviceCommunicator, AllReduceFollowsTheTreeBitForBit) { expect_gpu_tree_sums(group_of, on_gpu); }

TEST_F(DeviceCommunicator, PartsAndCopies) { expect_parts_and_copies(group_of, on_gpu); }

TEST_F(DeviceCommunicator, ABarrierWaitsForAll) { expect_barrier_waits(group_of); }

TEST_F(DeviceCommunicator, StreamsWaitForEachOther) { expect_stream_order(group_of, on_gpu); }

TEST_F(DeviceCommunicator, ARankThatStaysAwayIsNamed) {
  std::atomic<bool> gave_up{false};
  const auto errors = on_ranks(make_device_group(2, kGpu, 1s), [&](Communicator& communicator) {
    Tensor tensor = zeros({10}, {.device = kGpu});
    communicator.barrier();
    while (communicator.rank() == 1 && !gave_up) {
      std::this_thread::yield();
    }
    try {
      communicator.all_reduce(tensor);
    } catch (const CommunicatorError&) {
      gave_up = true;
      throw;
    }
  });
  EXPECT_THAT(errors, Each(AllOf(HasSubstr("all_reduce: timed out after 1 s in all_reduce (operation 2)"),
                                 HasSubstr("rank 1 stayed away; it last reached barrier (operation 1)"))));
}

TEST_F(DeviceCommunicator, AbortsAndLeavingEndTheGroup) {
  const auto errors = on_ranks(group_of(3), [](Communicator& communicator) {
    if (communicator.rank() == 2) {
      communicator.abort("out of paper");
    }
    Tensor tensor = zeros({10}, {.device = kGpu});
    communicator.broadcast(tensor, 0);
  });
  EXPECT_THAT(errors, Each("broadcast: rank 2 aborted: out of paper"));
  auto group = group_of(2);
  group[1].reset();
  EXPECT_THROW(group[0]->barrier(), CommunicatorError);
}

TEST_F(DeviceCommunicator, RefusesWhatItCannotSum) {
  auto group = group_of(1);
  Tensor on_cpu = zeros({4});
  EXPECT_THROW(group[0]->all_reduce(on_cpu), InputError);
  Tensor integers = zeros({4}, {.dtype = DType::i32, .device = kGpu});
  EXPECT_THROW(group[0]->all_reduce(integers), InputError);
  EXPECT_THROW(make_device_group(0, kGpu), InputError);
  EXPECT_THROW(make_device_group(2, kCpu), InputError);
}

TEST_F(DeviceCommunicator, OtherGpusReachMemoryWhereTheyCan) {
  const Tensor x = ones({10}, {.device = kGpu});
  cudaMemPool_t pool = nullptr;
  ASSERT_EQ(cudaDeviceGetDefaultMemPool(&pool, 0), cudaSuccess);
  for (int other = 1; other < cuda_device_count(); ++other) {
    int can = 0;
    cudaMemAccessFlags access{};
    cudaMemLocation location{cudaMemLocationTypeDevice, other};
    ASSERT_EQ(cudaDeviceCanAccessPeer(&can, other, 0), cudaSuccess);
    ASSERT_EQ(cudaMemPoolGetAccess(&access, pool, &location), cudaSuccess);
    EXPECT_EQ(access, can == 1 ? cudaMemAccessFlagsProtReadWrite : cudaMemAccessFlagsProtNone) << other;
  }
}

TEST_F(DeviceCommunicator, IsTheGroupOfOneGpu) {
  const std::vector<Device> twice{kGpu, kGpu};
  const auto errors = on_ranks(make_group(twice), [](Communicator& communicator) {
    Tensor tensor = ones({4}, {.device = kGpu});
    communicator.all_reduce(tensor);
    EXPECT_EQ(fetch(communicator, tensor).at({3}), 2);
  });
  EXPECT_THAT(errors, Each(""));
}

}  // namespace
}  // namespace millrace
