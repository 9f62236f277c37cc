#include "distributed/threads/communicator.h"

#include <atomic>
#include <gmock/gmock.h>
#include <random>

#include "tests/distributed/on_ranks.h"
#include "tests/distributed/rank_values.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

template <typename T>
void expect_tree_sums(int ranks, std::int64_t count) {
  const auto errors = on_ranks(ranks, [&](Communicator& communicator) {
    Tensor tensor = make<T>(1, communicator.rank(), count);
    communicator.all_reduce(tensor);
    for (std::int64_t i = 0; i < count; ++i) {
      ASSERT_EQ(tensor.data<T>()[i], expected_sum<T>(1, ranks, i))
          << ranks << " ranks, element " << i << " of " << count;
    }
  });
  EXPECT_THAT(errors, Each(""));
}

TEST(ThreadCommunicator, AllReduceFollowsTheTreeBitForBit) {
  for (int ranks : {1, 2, 3, 4, 5, 8}) {
    for (std::int64_t count : {0, 1, 15, 17, 1000, 5000}) {
      expect_tree_sums<float>(ranks, count);
      expect_tree_sums<double>(ranks, count);
    }
  }
}

TEST(ThreadCommunicator, ReduceScatterGivesEachRankItsPart) {
  constexpr std::int64_t kPart = 1100;
  for (int ranks : {1, 2, 3, 5}) {
    const auto errors = on_ranks(ranks, [&](Communicator& communicator) {
      Tensor input = make<float>(2, communicator.rank(), kPart * ranks);
      Tensor output = empty({kPart});
      communicator.reduce_scatter(input, output);
      for (std::int64_t i = 0; i < kPart; ++i) {
        ASSERT_EQ(output.data<float>()[i], expected_sum<float>(2, ranks, communicator.rank() * kPart + i));
      }
    });
    EXPECT_THAT(errors, Each(""));
  }
}

TEST(ThreadCommunicator, AllGatherJoinsInRankOrder) {
  for (int ranks : {1, 2, 3, 5}) {
    const auto errors = on_ranks(ranks, [&](Communicator& communicator) {
      Tensor input = full({2, 3}, communicator.rank() + 1, {.dtype = DType::i64});
      Tensor output = zeros({2 * ranks, 3}, {.dtype = DType::i64});
      communicator.all_gather(input, output);
      for (int r = 0; r < ranks; ++r) {
        ASSERT_EQ(output.at({2 * r + 1, 2}), r + 1);
      }
    });
    EXPECT_THAT(errors, Each(""));
  }
}

TEST(ThreadCommunicator, BroadcastCopiesFromAnyRoot) {
  for (int ranks : {1, 2, 3, 5}) {
    for (int root = 0; root < ranks; ++root) {
      const auto errors = on_ranks(ranks, [&](Communicator& communicator) {
        Tensor tensor = full({7}, communicator.rank(), {.dtype = DType::bf16});
        communicator.broadcast(tensor, root);
        ASSERT_EQ(tensor.at({6}), root);
      });
      EXPECT_THAT(errors, Each(""));
    }
  }
}

TEST(ThreadCommunicator, BarrierLetsNobodyPassEarly) {
  constexpr int kRanks = 4;
  std::atomic<int> arrived{0};
  const auto errors = on_ranks(kRanks, [&](Communicator& communicator) {
    for (int round = 1; round <= 200; ++round) {
      arrived.fetch_add(1);
      communicator.barrier();
      ASSERT_GE(arrived.load(), round * kRanks);
    }
  });
  EXPECT_THAT(errors, Each(""));
}

TEST(ThreadCommunicator, ARankThatStaysAwayIsNamedOnAllRanks) {
  std::atomic<int> gave_up{0};
  const auto errors = on_ranks(3, 1s, [&](Communicator& communicator) {
    Tensor tensor = zeros({10});
    communicator.barrier();
    while (communicator.rank() == 1 && gave_up.load() < 2) {
      std::this_thread::yield();
    }  // comes too late
    try {
      communicator.all_reduce(tensor);
    } catch (const CommunicatorError&) {
      ++gave_up;
      throw;
    }
  });
  EXPECT_THAT(errors, Each(AllOf(HasSubstr("all_reduce: timed out after 1 s in all_reduce (operation 2)"),
                                 HasSubstr("rank 1 stayed away; it last reached barrier (operation 1)"))));
}

TEST(ThreadCommunicator, ADestroyedRankEndsTheGroupAtOnce) {
  auto group = make_thread_group(2);
  group[1].reset();
  try {
    group[0]->barrier();
    FAIL() << "the barrier passed without rank 1";
  } catch (const CommunicatorError& error) {
    EXPECT_STREQ(error.what(), "barrier: rank 1 has left the group");
  }
}

TEST(ThreadCommunicator, AbortWakesEverybodyWithItsReason) {
  const auto errors = on_ranks(4, [](Communicator& communicator) {
    if (communicator.rank() == 2) {
      std::this_thread::sleep_for(20ms);  // the others sleep by now
      communicator.abort("out of paper");
    }
    communicator.barrier();
  });
  EXPECT_THAT(errors, Each("barrier: rank 2 aborted: out of paper"));
}

TEST(ThreadCommunicator, DifferentOperationsAreNamed) {
  const auto errors = on_ranks(2, [](Communicator& communicator) {
    Tensor tensor = zeros({4});
    if (communicator.rank() == 0) {
      communicator.all_reduce(tensor);
    } else {
      communicator.broadcast(tensor, 1);
    }
  });
  EXPECT_THAT(
      errors,
      Each(HasSubstr("rank 0 called all_reduce of f32 [4], rank 1 called broadcast of f32 [4] from rank 1")));
}

TEST(ThreadCommunicator, DifferentShapesTypesAndRootsAreNamed) {
  const auto shapes = on_ranks(3, [](Communicator& communicator) {
    Tensor tensor = zeros({communicator.rank() == 2 ? 5 : 4});
    communicator.all_reduce(tensor);
  });
  EXPECT_THAT(shapes,
              Each(HasSubstr("rank 0 called all_reduce of f32 [4], rank 2 called all_reduce of f32 [5]")));
  const auto types = on_ranks(2, [](Communicator& communicator) {
    Tensor tensor = zeros({4}, {.dtype = communicator.rank() == 0 ? DType::f32 : DType::f64});
    communicator.all_reduce(tensor);
  });
  EXPECT_THAT(types, Each(HasSubstr("rank 1 called all_reduce of f64 [4]")));
  const auto roots = on_ranks(2, [](Communicator& communicator) {
    Tensor tensor = zeros({4});
    communicator.broadcast(tensor, communicator.rank());
  });
  EXPECT_THAT(roots, Each(HasSubstr("rank 1 called broadcast of f32 [4] from rank 1")));
}

TEST(ThreadCommunicator, AFailedGroupStaysFailed) {
  const auto errors = on_ranks(3, [](Communicator& communicator) {
    if (communicator.rank() == 0) {
      communicator.abort("first");
    }
    for (int i = 0; i < 3; ++i) {
      EXPECT_THROW(communicator.barrier(), CommunicatorError);
    }
    communicator.abort("second");
    communicator.barrier();
  });
  EXPECT_THAT(errors, Each("barrier: rank 0 aborted: first"));
}

TEST(ThreadCommunicator, RefusesWhatItCannotSum) {
  auto group = make_thread_group(1);
  Tensor integers = zeros({4}, {.dtype = DType::i32});
  EXPECT_THROW(group[0]->all_reduce(integers), InputError);
  Tensor strided = zeros({4, 4}).slice(1, 0, 2);
  EXPECT_THROW(group[0]->all_reduce(strided), InputError);
  Tensor tensor = zeros({4});
  EXPECT_THROW(group[0]->broadcast(tensor, 1), InputError);
  Tensor part = zeros({3});
  EXPECT_THROW(group[0]->reduce_scatter(tensor, part), InputError);
  EXPECT_THROW(make_thread_group(0), InputError);
}

/// Random sequences of operations with random delays, and in half of them an abort at a random moment by a
/// thread outside: every result that is returned is right, and all ranks come back.
TEST(ThreadCommunicator, RandomOperationsAndAborts) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  RecordProperty("seed", static_cast<int>(seed));
  std::minstd_rand random(seed);
  for (int trial = 0; trial < 40; ++trial) {
    const int ranks = 2 + static_cast<int>(random() % 4);
    const std::uint32_t trial_seed = static_cast<std::uint32_t>(random());
    const bool aborts = random() % 2 == 0;
    const int abort_after = static_cast<int>(random() % 30);
    std::atomic<int> wrong{0};
    const auto errors = on_ranks(ranks, [&](Communicator& communicator) {
      std::minstd_rand shared(trial_seed), own(trial_seed + static_cast<std::uint32_t>(communicator.rank()));
      for (int step = 0; step < 30; ++step) {
        const auto kind = shared() % 3;
        const auto count = static_cast<std::int64_t>(shared() % 3000);
        if (own() % 8 == 0) {
          std::this_thread::sleep_for(std::chrono::microseconds(own() % 300));
        }
        if (aborts && step == abort_after && communicator.rank() == 1) {
          communicator.abort("trial");
        }
        if (kind == 0) {
          communicator.barrier();
          continue;
        }
        // Freed right after the operation, so that the address sanitizer sees a rank that still touches it.
        Tensor tensor = make<float>(trial_seed, communicator.rank(), count);
        if (kind == 1) {
          communicator.all_reduce(tensor);
        }
        if (kind == 2) {
          communicator.broadcast(tensor, step % ranks);
        }
        for (std::int64_t i = 0; i < count; i += 97) {
          const float expected = kind == 1 ? expected_sum<float>(trial_seed, ranks, i)
                                           : value_at<float>(trial_seed, step % ranks, i);
          wrong += tensor.data<float>()[i] != expected;
        }
      }
    });
    EXPECT_EQ(wrong.load(), 0) << "trial " << trial;
    EXPECT_THAT(errors, Each(aborts ? HasSubstr("rank 1 aborted: trial") : HasSubstr("")))
        << "trial " << trial;
    if (!aborts) {
      EXPECT_THAT(errors, Each("")) << "trial " << trial;
    }
  }
}

TEST(ThreadCommunicator, RefusesGroupsOfNoSizeItCanHave) {
  for (const int size : {-1, 0, 257, 1024}) {
    EXPECT_THROW(make_thread_group(size, 1s), InputError) << size;
  }
}

}  // namespace
}  // namespace millrace
