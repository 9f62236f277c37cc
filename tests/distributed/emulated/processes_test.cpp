// Groups of GPUs over several processes, which are threads here, by the fake NCCL.
#include "distributed/group/group.h"
#include "distributed/rendezvous/rendezvous.h"
#include "tests/distributed/emulated/gpus.h"
#include "tests/distributed/gpus/on_gpus.h"
#include "tests/distributed/processes/process_threads.h"

namespace millrace {
namespace {

using fake_nccl::Fault;
using ::testing::Each;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

class NcclProcesses : public FakeNcclTest {};

/// All members of a group over processes of `each` members, rank r on `place(r)`.
MakeGroup over_processes(int each, const PlaceOf& place) {
  return [=](int size) {
    std::vector<std::unique_ptr<Communicator>> all(static_cast<std::size_t>(size));
    const auto errors = on_process_threads(size / each, {}, [&](const auto& processes) {
      std::vector<Device> devices;
      const int first = processes->rank() * each;
      for (int r = first; r < first + each; ++r) {
        devices.push_back(place(r));
      }
      auto members = make_group(devices, {.processes = processes});
      std::ranges::move(members, all.begin() + first);
    });
    EXPECT_THAT(errors, Each(""));
    return all;
  };
}

/// Three processes sum until it goes wrong; returns what each of them says.
std::vector<std::string> errors_of(const std::function<void(ProcessGroup&, int round)>& before =
                                       [](ProcessGroup&, int) {}) {
  const ProcessGroupOptions options{.timeout = 1s};
  return on_process_threads(3, options, [&](const std::shared_ptr<ProcessGroup>& processes) {
    const std::vector<Device> own{gpu(processes->rank())};
    const auto members = make_group(own, {.timeout = options.timeout, .processes = processes});
    Tensor tensor = ones({100}, {.device = own[0]});
    for (int i = 0; i < 100; ++i) {
      before(*processes, i);
      members[0]->all_reduce(tensor);
      fetch(*members[0], tensor);
    }
  });
}

TEST_F(NcclProcesses, OneEach) {
  const MakeGroup make = over_processes(1, gpu);
  for (const int ranks : {1, 2, 3, 5}) {
    expect_gpu_tree_sums<float>(make, gpu, ranks, 1000);
  }
  expect_parts_and_copies(make, gpu);
  expect_stream_order(make, gpu);
}

TEST_F(NcclProcesses, TwoEach) {
  const MakeGroup make = over_processes(2, gpu);
  for (const int ranks : {4, 6, 8}) {
    expect_gpu_tree_sums<float>(make, gpu, ranks, 1000);
  }
  expect_stream_order(make, gpu);
}

TEST_F(NcclProcesses, TwoMembersOnOneGpuEach) {
  const auto place = [](int rank) { return gpu(rank / 2); };
  const MakeGroup make = over_processes(2, place);
  for (const int ranks : {2, 4, 8}) {
    expect_gpu_tree_sums<float>(make, place, ranks, 1000);
  }
  expect_stream_order(make, place);
  const auto errors = on_ranks(make(4), [&](Communicator& communicator) {
    const int rank = communicator.rank();
    const Stream side = Stream::make(place(rank));
    Tensor input = millrace::make<float>(5, rank, 40).to(place(rank)),
           part = empty({10}, {.device = place(rank)}), joined = empty({40}, {.device = place(rank)});
    for (const Tensor& tensor : {input, part, joined}) {
      tensor.storage()->record_stream(side);
    }
    Event filled, done;
    filled.record(current_stream(place(rank)));
    filled.make_wait(side);
    communicator.reduce_scatter(input, part, side);
    communicator.all_gather(part, joined, side);
    done.record(side);
    done.make_wait(current_stream(place(rank)));
    const Tensor all = fetch(communicator, joined);
    for (std::int64_t i = 0; i < 40; ++i) {
      ASSERT_EQ(all.data<float>()[i], expected_sum<float>(5, 4, i)) << i;
    }
  });
  EXPECT_THAT(errors, Each(""));
}

TEST_F(NcclProcesses, WhoFailsIsNamedByAll) {
  const auto errors = errors_of([](ProcessGroup& processes, int round) {
    if (processes.rank() == 1 && round == 3) {
      throw MachineError("out of paper");
    }
  });
  EXPECT_EQ(errors[1], "out of paper");
  EXPECT_EQ(errors[0], "all_reduce: rank 1 failed: out of paper");
  EXPECT_EQ(errors[2], errors[0]);
}

TEST_F(NcclProcesses, WhoStaysAwayIsNamedByAll) {
  const auto errors = errors_of([](ProcessGroup& processes, int round) {
    if (processes.rank() == 2 && round == 3) {
      processes.rendezvous().failure(1min);  // returns when the others have given up
    }
  });
  EXPECT_THAT(errors, Each(HasSubstr("rank 2 stayed away for 1 s")));
}

TEST_F(NcclProcesses, WhoComesOtherwiseIsNamedByAll) {
  const auto errors = on_process_threads(2, {}, [](const std::shared_ptr<ProcessGroup>& processes) {
    std::vector<Device> own{gpu(2 * processes->rank())};
    if (processes->rank() == 1) {
      own.push_back(gpu(3));
    }
    make_group(own, {.processes = processes});
  });
  EXPECT_EQ(
      errors[0],
      "the processes differ: rank 1 has come to 'NCCL, 2 ranks in each process', and rank 0 to 'NCCL, 1 "
      "ranks in each process'; start all of them alike");
  EXPECT_THAT(errors[1], HasSubstr("rank 0 has come to 'NCCL, 1 ranks in each process', and rank 1 to"));
}

TEST_F(NcclProcesses, AnAbortTravels) {
  const auto errors = on_process_threads(2, {}, [](const std::shared_ptr<ProcessGroup>& processes) {
    const std::vector<Device> own{gpu(processes->rank())};
    const auto members = make_group(own, {.processes = processes});
    if (processes->rank() == 1) {
      members[0]->abort("out of paper");
      EXPECT_NE(processes->rendezvous().failure(1min), "");
    }
    members[0]->barrier();
  });
  EXPECT_EQ(errors[0], "barrier: rank 1 failed: rank 1 aborted: out of paper");
  EXPECT_EQ(errors[1], "barrier: rank 1 aborted: out of paper");
}

TEST_F(NcclProcesses, WhatNcclRefusesEndsAllProcesses) {
  fake_nccl::install({.fault = Fault::refuses, .rank = 1, .nth = 6});
  const auto errors = errors_of();
  EXPECT_THAT(
      errors,
      Each(HasSubstr("rank 1: NCCL reports invalid usage: said by the fake; rank 1 reached all_reduce")));
}

TEST_F(NcclProcesses, WhatNeverCompletesTimesOut) {
  fake_nccl::install({.fault = Fault::never_completes, .rank = 1, .nth = 6});
  const auto errors = errors_of();
  EXPECT_THAT(errors, Each(HasSubstr("timed out after 1 s in all_reduce")));
}

}  // namespace
}  // namespace millrace
