// NcclCommunicator over the fake NCCL, on eight emulated GPUs.
#include <atomic>

#include "distributed/buckets.h"
#include "distributed/gpus/device_communicator.h"
#include "distributed/gpus/nccl_communicator.h"
#include "distributed/group/group.h"
#include "emulator.h"
#include "tensor/ops.h"
#include "tests/distributed/emulated/gpus.h"
#include "tests/distributed/gpus/on_gpus.h"
#include "tests/tensor/sample.h"

namespace millrace {
namespace {

using fake_nccl::Fault;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

std::vector<Device> gpus(int size) {
  std::vector<Device> devices;
  for (int r = 0; r < size; ++r) {
    devices.push_back(gpu(r));
  }
  return devices;
}

auto group_of(int size) { return make_nccl_group(gpus(size)); }

class NcclCommunicator : public FakeNcclTest {
 protected:
  /// Three ranks sum until it goes wrong, as `plan` says in their third operation.
  static std::vector<std::string> errors_of(fake_nccl::Plan plan, SumOrder sum_order) {
    plan.rank = 1;
    plan.nth = sum_order == SumOrder::tree ? 5 : 3;  // the tree has two groups of calls an operation
    fake_nccl::install(plan);
    auto group = make_nccl_group(gpus(3), {.timeout = 1s, .sum_order = sum_order});
    return on_ranks(std::move(group), [](Communicator& communicator) {
      Tensor tensor = ones({100}, {.device = gpu(communicator.rank())});
      for (int i = 0; i < 100; ++i) {
        communicator.all_reduce(tensor);
        fetch(communicator, tensor);
      }
    });
  }
};

TEST_F(NcclCommunicator, AllReduceFollowsTheTreeBitForBit) { expect_gpu_tree_sums(group_of, gpu); }

TEST_F(NcclCommunicator, PartsAndCopies) { expect_parts_and_copies(group_of, gpu); }

TEST_F(NcclCommunicator, ABarrierWaitsForAll) { expect_barrier_waits(group_of); }

TEST_F(NcclCommunicator, StreamsWaitForEachOther) { expect_stream_order(group_of, gpu); }

TEST_F(NcclCommunicator, WorkThatIsDoneOutOfOrder) {
  fake_nccl::install({.out_of_order = true});
  expect_gpu_tree_sums<float>(group_of, gpu, 4, 1000);
  expect_stream_order(group_of, gpu);
}

TEST_F(NcclCommunicator, TheEnginesOwnSums) {
  const auto errors =
      on_ranks(make_nccl_group(gpus(4), {.sum_order = SumOrder::engine}), [](Communicator& communicator) {
        const int rank = communicator.rank();
        Tensor tensor = make<float>(3, rank, 100).to(gpu(rank)), part = empty({25}, {.device = gpu(rank)});
        Tensor copy = tensor.clone();
        communicator.all_reduce(tensor);
        communicator.reduce_scatter(copy, part);
        const Tensor sums = fetch(communicator, tensor), own = fetch(communicator, part);
        for (std::int64_t i = 0; i < 100; ++i) {
          float sum = value_at<float>(3, 0, i);  // the fake's order
          for (int r = 1; r < 4; ++r) {
            sum += value_at<float>(3, r, i);
          }
          ASSERT_EQ(sums.data<float>()[i], sum);
          if (i / 25 == rank) {
            ASSERT_EQ(own.data<float>()[i % 25], sum);
          }
        }
      });
  EXPECT_THAT(errors, Each(""));
}

TEST_F(NcclCommunicator, MemoryOfTheGroupIsAWindow) {
  const auto errors = on_ranks(group_of(2), [](Communicator& communicator) {
    const Device device = gpu(communicator.rank());
    Tensor buffer = communicator.allocate(1000, {.device = device});
    communicator.barrier();
    EXPECT_EQ(fake_nccl::held().blocks, 2);
    EXPECT_EQ(fake_nccl::held().windows, 2);
    buffer.fill_(communicator.rank() + 1);
    communicator.all_reduce(buffer);
    EXPECT_EQ(fetch(communicator, buffer).at({999}), 3);
    communicator.barrier();
  });
  EXPECT_THAT(errors, Each(""));
}

TEST_F(NcclCommunicator, MemoryMayOutliveTheGroup) {
  Tensor kept;
  {
    auto group = group_of(1);
    kept = group[0]->allocate(10, {.device = gpu(0)});
  }
  EXPECT_EQ(fake_nccl::held().windows, 0);
  EXPECT_EQ(kept.fill_(4).to(kCpu).at({9}), 4);
}

TEST_F(NcclCommunicator, BucketsGiveTheBitsOfThreads) {
  const std::vector<std::int64_t> offsets{0, 100, 300, 900, 1600};
  const auto errors = on_ranks(group_of(4), [&](Communicator& communicator) {
    const Device device = gpu(communicator.rank());
    Tensor buffer = communicator.allocate(2000, {.device = device});
    Tensor doubled = zeros({2000}, {.device = device});
    doubled.storage()->record_stream(current_stream(device));
    Buckets buckets(buffer, offsets, communicator,
                    {.bucket_bytes = 1000, .summed = [&](std::int64_t begin, std::int64_t end) {
                       Tensor part = doubled.narrow(0, begin, end - begin);
                       part.add_(buffer.narrow(0, begin, end - begin), 2);
                     }});
    ASSERT_GT(buckets.count(), 2);
    for (std::uint32_t round = 0; round < 3; ++round) {
      buffer.copy_(make<float>(round, communicator.rank(), 2000));
      doubled.zero_();
      for (std::size_t piece = 0; piece < offsets.size(); ++piece) {
        buckets.ready(piece);
      }
      buckets.finish();
      const Tensor sums = fetch(communicator, buffer), twice = fetch(communicator, doubled);
      for (std::int64_t i = 0; i < 2000; ++i) {
        const float sum = expected_sum<float>(round, 4, i);
        ASSERT_EQ(sums.data<float>()[i], sum) << i;
        ASSERT_EQ(twice.data<float>()[i], 2 * sum) << i;
      }
    }
  });
  EXPECT_THAT(errors, Each(""));
}

TEST_F(NcclCommunicator, WhatNcclRefusesEndsTheGroup) {
  for (const SumOrder sum_order : {SumOrder::tree, SumOrder::engine}) {
    EXPECT_THAT(errors_of({.fault = Fault::refuses}, sum_order),
                Each(AllOf(HasSubstr("all_reduce: rank 1: NCCL reports invalid usage: said by the fake"),
                           HasSubstr("rank 1 reached all_reduce (operation 3)"))));
  }
}

TEST_F(NcclCommunicator, WhatNeverSettlesTimesOut) {
  for (const SumOrder sum_order : {SumOrder::tree, SumOrder::engine}) {
    EXPECT_THAT(errors_of({.fault = Fault::never_settles}, sum_order),
                Each(AllOf(HasSubstr("all_reduce: timed out after 1 s in all_reduce (operation 3)"),
                           HasSubstr("rank 0 reached all_reduce (operation 3)"))));
  }
}

TEST_F(NcclCommunicator, WhatNeverCompletesTimesOut) {
  for (const SumOrder sum_order : {SumOrder::tree, SumOrder::engine}) {
    EXPECT_THAT(errors_of({.fault = Fault::never_completes}, sum_order),
                Each(AllOf(HasSubstr("all_reduce: timed out after 1 s in all_reduce (operation 3)"),
                           HasSubstr("rank 2 reached all_reduce (operation 3)"))));
  }
}

/// Also where the wait is for something behind it. Rank 1 has a part in all of them.
TEST_F(NcclCommunicator, WhicheverNeverCompletesIsNamed) {
  using Begin = std::function<void(Communicator&, Tensor&, Tensor&)>;
  const std::pair<const char*, Begin> operations[] = {
      {"all_reduce", [](auto& group, auto&, auto& whole) { group.all_reduce(whole); }},
      {"reduce_scatter", [](auto& group, auto& part, auto& whole) { group.reduce_scatter(whole, part); }},
      {"all_gather", [](auto& group, auto& part, auto& whole) { group.all_gather(part, whole); }},
      {"broadcast", [](auto& group, auto&, auto& whole) { group.broadcast(whole, 1); }}};
  for (const auto& [name, begin] : operations) {
    fake_nccl::install({.fault = Fault::never_completes, .rank = 1});
    const auto errors =
        on_ranks(make_nccl_group(gpus(3), {.timeout = 500ms}), [&](Communicator& communicator) {
          const TensorOptions options{.device = gpu(communicator.rank())};
          Tensor part = ones({10}, options), whole = ones({30}, options);
          begin(communicator, part, whole);
          communicator.barrier();
        });
    EXPECT_THAT(errors, Each(HasSubstr(fmt::format("timed out after 0.5 s in {} (operation 1)", name))));
  }
}

TEST_F(NcclCommunicator, AnErrorThatIsReportedLateEndsTheGroup) {
  for (const SumOrder sum_order : {SumOrder::tree, SumOrder::engine}) {
    EXPECT_THAT(
        errors_of({.fault = Fault::reports_late}, sum_order),
        Each(AllOf(HasSubstr("rank 1: NCCL reports remote process exited or there was a network error"),
                   HasSubstr("rank 0 reached all_reduce (operation 3)"))));
  }
}

TEST_F(NcclCommunicator, ARankThatStaysAwayIsNamedByAll) {
  std::atomic<int> gave_up{0};
  auto group = make_nccl_group(gpus(3), {.timeout = 1s});
  const auto errors = on_ranks(std::move(group), [&](Communicator& communicator) {
    Tensor tensor = zeros({10}, {.device = gpu(communicator.rank())});
    communicator.barrier();
    while (communicator.rank() == 1 && gave_up < 2) {
      std::this_thread::yield();
    }
    try {
      communicator.all_reduce(tensor);
      fetch(communicator, tensor);
    } catch (const CommunicatorError&) {
      ++gave_up;
      throw;
    }
  });
  EXPECT_THAT(errors, Each(AllOf(HasSubstr("timed out after 1 s in all_reduce (operation 2)"),
                                 HasSubstr("rank 0 reached all_reduce (operation 2)"),
                                 HasSubstr("rank 1 reached barrier (operation 1)"),
                                 HasSubstr("rank 2 reached all_reduce (operation 2)"))));
}

TEST_F(NcclCommunicator, AHostThatWaitsForTheStreamIsFreed) {
  auto group = make_nccl_group(gpus(2), {.timeout = 1s});
  Tensor tensor = zeros({10}, {.device = gpu(0)});
  group[0]->all_reduce(tensor);
  current_stream(gpu(0)).synchronize();  // rank 1 never comes
  EXPECT_THROW(group[0]->all_reduce(tensor), CommunicatorError);
}

TEST_F(NcclCommunicator, WhatKernelsFoundIsLeftToWhoReadsTheNumbers) {
  auto group = make_nccl_group(gpus(1), {.sum_order = SumOrder::engine});
  const Tensor index = tensor({3}, {.dtype = DType::i64}).to(gpu(0));
  const Tensor row = index_select(ones({3, 4}, {.device = gpu(0)}), 0, index);
  Tensor gathered = empty({1, 4}, {.device = gpu(0)});
  group[0]->all_gather(row, gathered);
  std::this_thread::sleep_for(200ms);  // the watchdog has seen that it is done
  EXPECT_THAT(test::input_error([&] { fetch(*group[0], gathered); }), HasSubstr("index 3 is outside"));
}

TEST_F(NcclCommunicator, AbortFromAnyThreadEndsWaits) {
  auto group = group_of(2);
  Tensor tensor = zeros({10}, {.device = gpu(0)});
  group[0]->all_reduce(tensor);
  std::thread other([&] { group[1]->abort("out of paper"); });
  try {
    fetch(*group[0], tensor);
    FAIL() << "rank 1 never came";
  } catch (const CommunicatorError& error) {
    EXPECT_STREQ(error.what(), "all_reduce: rank 1 aborted: out of paper");
  }
  other.join();
  EXPECT_THROW(group[1]->barrier(), CommunicatorError);
}

TEST_F(NcclCommunicator, ARankThatLeftIsMissedOnlyByWhatItMissed) {
  auto group = group_of(2);
  std::vector<Tensor> tensors;
  for (int r = 0; r < 2; ++r) {
    tensors.push_back(ones({10}, {.device = gpu(r)}));
    group[static_cast<std::size_t>(r)]->all_reduce(tensors.back());
  }
  group[1].reset();
  EXPECT_EQ(fetch(*group[0], tensors[0]).at({9}), 2);
  try {
    group[0]->barrier();
    FAIL() << "the barrier passed without rank 1";
  } catch (const CommunicatorError& error) {
    EXPECT_STREQ(error.what(), "barrier: rank 1 has left the group");
  }
}

TEST_F(NcclCommunicator, MembersJoinByAnId) {
  const NcclId id = make_nccl_id();
  const auto board = make_shared_board(3);
  std::vector<std::thread> threads;
  for (int r = 0; r < 3; ++r) {
    threads.emplace_back([&, r] {
      const std::vector<Device> own{gpu(r)};
      const auto members = join_nccl_group({.id = id, .first = r, .devices = own, .board = board});
      Tensor tensor = full({10}, r, {.device = gpu(r)});
      members[0]->all_reduce(tensor);
      EXPECT_EQ(fetch(*members[0], tensor).at({0}), 3);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST_F(NcclCommunicator, AMemberThatNeverJoinsIsNamed) {
  const std::vector<Device> own{gpu(0)};
  const NcclMembers members{.id = make_nccl_id(), .first = 1, .devices = own, .board = make_shared_board(2)};
  try {
    join_nccl_group(members, {.timeout = 1s});
    FAIL() << "rank 0 is not there";
  } catch (const CommunicatorError& error) {
    EXPECT_STREQ(
        error.what(),
        "join: timed out after 1 s in join (operation 0): rank 0 reached nothing, rank 1 reached join");
  }
}

TEST_F(NcclCommunicator, RefusesWhatItCannotDo) {
  const std::vector<Device> twice{gpu(0), gpu(1), gpu(0)}, mixed{gpu(0), kCpu};
  EXPECT_THROW(make_nccl_group(twice), InputError);
  EXPECT_THROW(make_nccl_group(mixed), InputError);
  EXPECT_THROW(make_nccl_group({}), InputError);
  const auto few = make_shared_board(2);
  EXPECT_THROW(join_nccl_group({.id = {}, .first = 1, .devices = gpus(2), .board = few}), InputError);
  try {
    make_group(twice);
    FAIL() << "made";
  } catch (const InputError& error) {
    EXPECT_STREQ(
        error.what(),
        "group: got replicas on cuda:0, cuda:1, cuda:0, expected all on the CPU, all on one GPU, or each "
        "on a GPU of its own");
  }
  auto group = make_group(gpus(2));
  Tensor elsewhere = zeros({4}, {.device = gpu(1)}), on_cpu = zeros({4});
  EXPECT_THROW(group[0]->all_reduce(elsewhere), InputError);
  EXPECT_THROW(group[0]->all_reduce(on_cpu), InputError);
  EXPECT_THROW(group[0]->broadcast(elsewhere, 2), InputError);
}

/// Random operations, in half of the trials with an abort at a random moment: what is returned is right, and
/// all ranks come back.
TEST_F(NcclCommunicator, RandomOperationsAndAborts) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::minstd_rand random(seed);
  for (int trial = 0; trial < 10; ++trial) {
    const int ranks = 2 + static_cast<int>(random() % 3);
    const auto trial_seed = static_cast<std::uint32_t>(random());
    const bool aborts = random() % 2 == 0;
    const int abort_after = static_cast<int>(random() % 10);
    std::atomic<int> wrong{0};
    const auto errors = on_ranks(group_of(ranks), [&](Communicator& communicator) {
      const int rank = communicator.rank();
      std::minstd_rand shared(trial_seed);
      for (int step = 0; step < 10; ++step) {
        const bool sums = shared() % 2 == 0;
        const auto count = static_cast<std::int64_t>(shared() % 500);
        if (aborts && step == abort_after && rank == 1) {
          communicator.abort("trial");
        }
        Tensor tensor = make<float>(trial_seed, rank, count).to(gpu(rank));
        if (sums) {
          communicator.all_reduce(tensor);
        } else {
          communicator.broadcast(tensor, step % ranks);
        }
        const Tensor values = fetch(communicator, tensor);
        for (std::int64_t i = 0; i < count; i += 37) {
          wrong += values.data<float>()[i] != (sums ? expected_sum<float>(trial_seed, ranks, i)
                                                    : value_at<float>(trial_seed, step % ranks, i));
        }
      }
    });
    EXPECT_EQ(wrong.load(), 0) << "trial " << trial;
    EXPECT_THAT(errors, aborts ? Each(HasSubstr("rank 1 aborted: trial")) : Each(HasSubstr(""))) << trial;
  }
}

TEST(DeviceCommunicatorFaults, AKernelThatCannotBeLaunchedEndsTheGroup) {
  std::atomic<int> machine_errors{0};
  const auto errors = on_ranks(make_device_group(3, gpu(0)), [&](Communicator& communicator) {
    Tensor tensor = ones({100}, {.device = gpu(0)});
    communicator.barrier();
    if (communicator.rank() == 0) {
      emulator::fail("cudaLaunchKernelEx", cudaErrorLaunchOutOfResources);
    }
    try {
      communicator.all_reduce(tensor);
    } catch (const MachineError& error) {
      EXPECT_THAT(error.what(), HasSubstr("tree_sum: got CUDA error"));
      ++machine_errors;
    }
  });
  EXPECT_EQ(machine_errors, 1);
  EXPECT_EQ(errors[0], "");
  EXPECT_THAT(errors[1], HasSubstr("all_reduce: rank 0 failed: tree_sum: got CUDA error"));
  EXPECT_EQ(errors[1], errors[2]);
}

}  // namespace
}  // namespace millrace
