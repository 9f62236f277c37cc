#include "distributed/processes/gloo_communicator.h"

#include <cmath>
#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

#include "tensor/ops/random.h"
#include "tests/distributed/on_ranks.h"
#include "tests/distributed/processes/on_processes.h"

namespace millrace {
namespace {

using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

void require(bool condition, const std::string& what) {
  if (!condition) {
    throw std::runtime_error(what);
  }
}

Tensor values(int rank, std::int64_t count, DType dtype = DType::f32) {
  Generator generator(static_cast<std::uint64_t>(rank) + 7);
  return randn({count}, generator).to(dtype);
}

/// What a group of threads makes of the same values: the tree's sum.
Tensor sum_of_threads(int size, std::int64_t count, DType dtype) {
  Tensor result;
  on_ranks(size, [&](Communicator& group) {
    Tensor mine = values(group.rank(), count, dtype);
    group.all_reduce(mine);
    if (group.rank() == 0) {
      result = mine;
    }
  });
  return result;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.numel() == b.numel() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

TEST(GlooCommunicator, SumsOnTheTreeOfThreads) {
  for (const int size : {2, 3, 4}) {
    for (const std::int64_t count : {1, 17, 4096, 4097, 300000}) {
      for (const DType dtype : {DType::f32, DType::f64}) {
        SCOPED_TRACE(fmt::format("{} ranks, {} of {}", size, count, dtype));
        const Tensor expected = sum_of_threads(size, count, dtype);
        const auto errors =
            on_processes(size, std::chrono::seconds(30), [&](Rendezvous&, Communicator& group) {
              Tensor mine = values(group.rank(), count, dtype);
              group.all_reduce(mine);
              require(same_bits(mine, expected), "another sum");
            });
        EXPECT_THAT(errors, Each(IsEmpty()));
      }
    }
  }
}

TEST(GlooCommunicator, EngineSumsToRounding) {
  const Tensor expected = sum_of_threads(3, 1000, DType::f32);
  const auto body = [&](Rendezvous&, Communicator& group) {
    Tensor mine = values(group.rank(), 1000);
    group.all_reduce(mine);
    for (std::int64_t i = 0; i < 1000; ++i) {
      require(std::abs(mine.data<float>()[i] - expected.data<float>()[i]) < 1e-5, "another sum");
    }
  };
  EXPECT_THAT(on_processes(3, std::chrono::seconds(30), body, SumOrder::engine), Each(IsEmpty()));
}

TEST(GlooCommunicator, OtherOperations) {
  const auto errors = on_processes(3, std::chrono::seconds(30), [](Rendezvous& run, Communicator& group) {
    const int r = group.rank();
    require(run.all_gather("ranks", std::to_string(r)) == std::vector<std::string>{"0", "1", "2"}, "texts");
    Tensor one = full({2}, r, {.dtype = DType::i64}), all = zeros({6}, {.dtype = DType::i64});
    group.all_gather(one, all);
    for (std::int64_t i = 0; i < 6; ++i) {
      require(all.data<std::int64_t>()[i] == i / 2, "gathered");
    }
    group.broadcast(one, 2);
    require(one.data<std::int64_t>()[1] == 2, "broadcast");
    Tensor many = full({6}, r + 1.0), part = zeros({2});
    group.reduce_scatter(many, part);
    require(part.data<float>()[0] == 6, "scattered");
    Tensor nothing = zeros({0});
    group.all_reduce(nothing);
    group.barrier();
  });
  EXPECT_THAT(errors, Each(IsEmpty()));
}

/// All ranks but `lost`, which does `way` in the third step, end with an error that names it.
void expect_named(int size, int lost, const std::function<void(Communicator&)>& way, const std::string& named,
                  std::chrono::duration<double> timeout = std::chrono::seconds(2)) {
  SCOPED_TRACE(fmt::format("rank {} of {}", lost, size));
  const auto start = std::chrono::steady_clock::now();
  const auto errors = on_processes(size, timeout, [&](Rendezvous& run, Communicator& group) {
    for (int step = 0; step < 1000; ++step) {
      run.set_step(step);
      if (step == 3 && group.rank() == lost) {
        std::this_thread::sleep_for(timeout / 2);  // so that its step is known
        way(group);
      }
      Tensor mine = values(group.rank(), 200000);
      group.all_reduce(mine);
    }
  });
  EXPECT_LT(std::chrono::steady_clock::now() - start, 3 * timeout + std::chrono::seconds(5));
  for (int r = 0; r < size; ++r) {
    if (r != lost) {
      EXPECT_THAT(errors[static_cast<std::size_t>(r)],
                  testing::AllOf(HasSubstr(fmt::format("rank {} {}", lost, named)), HasSubstr("all_reduce")));
    }
  }
}

TEST(GlooCommunicator, NamesTheOneThatDied) {
  for (const int lost : {0, 1, 2}) {
    expect_named(
        3, lost, [](Communicator&) { raise(SIGKILL); }, "died");
  }
}

TEST(GlooCommunicator, NamesTheOneThatStopped) {
  for (const int lost : {0, 1}) {
    expect_named(
        3, lost, [](Communicator&) { raise(SIGSTOP); }, "hangs or is cut off");
  }
}

TEST(GlooCommunicator, NamesTheOneThatStaysAway) {
  for (const int lost : {0, 2}) {
    expect_named(
        3, lost, [](Communicator&) { std::this_thread::sleep_for(std::chrono::seconds(4)); }, "stayed away");
  }
}

TEST(GlooCommunicator, NamesTheOneThatAborts) {
  expect_named(
      3, 1,
      [](Communicator& group) {
        group.abort("no more disk");
        throw std::runtime_error("");
      },
      "failed: no more disk");
}

TEST(GlooCommunicator, SaysTheLastStep) {
  const auto errors = on_processes(2, std::chrono::seconds(2), [](Rendezvous& run, Communicator& group) {
    run.set_step(41);
    group.barrier();
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    if (group.rank() == 1) {
      raise(SIGKILL);
    }
    group.barrier();
  });
  EXPECT_THAT(errors[0], HasSubstr("rank 1 died: its connection broke; its last step was 41"));
}

}  // namespace
}  // namespace millrace
