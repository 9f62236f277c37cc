#include "distributed/shards.h"

#include <cstring>
#include <gtest/gtest.h>

#include "distributed/nested_communicator.h"
#include "distributed/subtree_sum.h"
#include "tensor/ops/random.h"
#include "tests/distributed/on_ranks.h"

namespace millrace {
namespace {

TEST(Shards, AreSharedOutInOrder) {
  EXPECT_EQ(shards_of(0, 3, 8), (ShardRange{0, 2}));
  EXPECT_EQ(shards_of(1, 3, 8), (ShardRange{2, 3}));
  EXPECT_EQ(shards_of(2, 3, 8), (ShardRange{5, 3}));
  EXPECT_EQ(shards_of(3, 4, 16), (ShardRange{12, 4}));
}

TEST(Shards, SubtreesAreAligned) {
  for (int first = 0; first < 17; ++first) {
    for (int count = 0; first + count <= 17; ++count) {
      int at = first;
      for (const ShardRange& subtree : subtrees_of({first, count})) {
        EXPECT_EQ(subtree.first, at);
        EXPECT_EQ(subtree.first % subtree.count, 0);
        EXPECT_EQ(subtree.count & (subtree.count - 1), 0);
        at = subtree.end();
      }
      EXPECT_EQ(at, first + count);
    }
  }
  EXPECT_EQ(subtrees_of({3, 3}), (std::vector<ShardRange>{{3, 1}, {4, 2}}));
}

Tensor leaf(int shard, std::int64_t count) {
  Generator generator(static_cast<std::uint64_t>(shard));
  return randn({count}, generator);
}

Tensor sum_of(ShardRange range, std::int64_t count) {
  if (range.count == 1) {
    return leaf(range.first, count);
  }
  const int half = range.count / 2;
  Tensor left = sum_of({range.first, half}, count);
  left.add_(sum_of({range.first + half, half}, count));
  return left;
}

bool same_bits(const Tensor& a, const Tensor& b) { return std::memcmp(a.raw(), b.raw(), a.bytes()) == 0; }

TEST(SubtreeSum, GivesTheTreesBitsForAnyRanks) {
  constexpr int kShards = 8;
  for (const std::int64_t count : {5, (1 << 18) + 3}) {
    const Tensor expected = sum_of({0, kShards}, count);
    for (const int ranks : {1, 2, 3, 5, 6, 7, 8}) {
      on_ranks(ranks, [&](Communicator& group) {
        Tensor total = zeros({count});
        SubtreeSum sum(kShards, total, group);
        for (std::size_t i = 0; i < sum.subtrees().size(); ++i) {
          sum.give(i, sum_of(sum.subtrees()[i], count));
        }
        sum.finish(total);
        EXPECT_TRUE(same_bits(total, expected)) << group.rank() << " of " << ranks;
      });
    }
  }
}

/// Runs `body` as each of 2 members in each of 2 "processes", which are threads here.
void on_nested(const std::function<void(Communicator&)>& body) {
  auto processes = make_thread_group(2, std::chrono::minutes(1));
  std::vector<std::thread> threads;
  for (auto& process : processes) {
    threads.emplace_back([&body, between = std::shared_ptr<Communicator>(std::move(process))] {
      auto members = nest(make_thread_group(2, std::chrono::minutes(1)), between);
      std::thread second([&] { body(*members[1]); });
      body(*members[0]);
      second.join();
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST(NestedCommunicator, IsOneGroup) {
  const Tensor expected = sum_of({0, 4}, 1000);
  on_nested([&](Communicator& group) {
    const int r = group.rank();
    EXPECT_EQ(group.size(), 4);
    Tensor mine = leaf(r, 1000);
    group.all_reduce(mine);
    EXPECT_TRUE(same_bits(mine, expected));
    Tensor all = zeros({4}), one = full({1}, r);
    group.all_gather(one, all);
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(all.data<float>()[i], static_cast<float>(i));
    }
    for (int root = 0; root < 4; ++root) {
      Tensor told = full({1}, r);
      group.broadcast(told, root);
      EXPECT_EQ(told.item(), root);
    }
    Tensor many = full({8}, r), part = zeros({2});
    group.reduce_scatter(many, part);
    EXPECT_EQ(part.data<float>()[1], 6);
    group.barrier();
  });
}

}  // namespace
}  // namespace millrace
