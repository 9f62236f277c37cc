#include "dataio/order.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

#include "tests/base/temporary_folder.h"

namespace millrace {
namespace {

using Indices = std::vector<std::int64_t>;

Indices order_of(std::int64_t samples, const OrderOptions& options, std::int64_t epoch = 0,
                 std::uint64_t seed = 7) {
  Indices all(static_cast<std::size_t>(samples));
  EpochOrder(samples, options, seed, epoch).indices(0, all);
  return all;
}

OrderOptions blocks(std::int64_t block_size, std::int64_t window) {
  return {.kind = Order::blocks, .block_size = block_size, .window = window};
}

TEST(Order, BlocksAreABijectionForEverySmallSize) {
  for (std::int64_t samples = 1; samples <= 120; ++samples) {
    Indices expected(static_cast<std::size_t>(samples));
    std::iota(expected.begin(), expected.end(), 0);
    for (const std::int64_t block_size : {1, 2, 3, 5, 7, 16, 119, 1000}) {
      for (const std::int64_t window : {1, 2, 3, 50}) {
        for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
          Indices got = order_of(samples, blocks(block_size, window), epoch);
          std::sort(got.begin(), got.end());
          ASSERT_EQ(got, expected) << samples << " samples, blocks of " << block_size << ", window "
                                   << window;
        }
      }
    }
  }
}

TEST(Order, AnyPartOfAnEpochIsAskedForAlone) {
  for (const OrderOptions& options : {blocks(5, 3), OrderOptions{}, OrderOptions{Order::sequential}}) {
    const Indices whole = order_of(103, options, 4);
    const EpochOrder order(103, options, 7, 4);
    for (std::int64_t start = 0; start < 103; start += 9) {
      Indices part(static_cast<std::size_t>(std::min<std::int64_t>(31, 103 - start)));
      order.indices(start, part);
      EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + start)) << start;
    }
  }
}

TEST(Order, AWindowReadsFewWholeBlocks) {
  constexpr std::int64_t kSamples = 1000, kBlock = 10, kWindow = 4;
  const Indices all = order_of(kSamples, blocks(kBlock, kWindow));
  for (std::int64_t begin = 0; begin < kSamples; begin += kBlock * kWindow) {
    std::set<std::int64_t> read;
    for (std::int64_t i = begin; i < begin + kBlock * kWindow; ++i) {
      read.insert(all[static_cast<std::size_t>(i)] / kBlock);
    }
    EXPECT_EQ(read.size(), 4u);
  }
}

TEST(Order, TheShortBlockTakesEveryPlace) {
  std::set<std::int64_t> places;
  for (std::int64_t epoch = 0; epoch < 200; ++epoch) {
    const Indices all = order_of(33, blocks(8, 1), epoch);
    places.insert(std::find(all.begin(), all.end(), 32) - all.begin());
  }
  EXPECT_GE(places.size(), 5u);
}

TEST(Order, BlocksDifferByEpochAndSeed) {
  const Indices first = order_of(500, blocks(8, 4), 0, 1);
  EXPECT_EQ(first, order_of(500, blocks(8, 4), 0, 1));
  EXPECT_NE(first, order_of(500, blocks(8, 4), 1, 1));
  EXPECT_NE(first, order_of(500, blocks(8, 4), 0, 2));
}

// Resuming depends on these: whoever changes an order gives kPermutationVersion a new number.
TEST(Order, BlocksAreFrozen) {
  EXPECT_EQ(kPermutationVersion, 1);
  EXPECT_EQ(order_of(11, blocks(3, 2), 1, 5), (Indices{1, 0, 8, 2, 7, 6, 4, 5, 10, 3, 9}));
}

TEST(Order, HugeDataSetsCostNothing) {
  constexpr std::int64_t kHuge = (std::int64_t{1} << 62) - 1;
  for (const OrderOptions& options : {blocks(1000, 64), blocks(kHuge, kHuge), blocks(1, kHuge)}) {
    const EpochOrder order(kHuge, options, 3, 0);
    Indices last(100);
    order.indices(kHuge - 100, last);
    for (const std::int64_t index : last) {
      EXPECT_TRUE(index >= 0 && index < kHuge);
    }
  }
}

TEST(Order, MixingIsMeasuredAgainstAFullShuffle) {
  constexpr std::int64_t kSamples = 50000;
  const Mixing none = measure_mixing(kSamples, {Order::sequential}, 1);
  EXPECT_EQ(none.displacement, 0);
  EXPECT_EQ(none.adjacent, 1);
  const Mixing full = measure_mixing(kSamples, {}, 1);
  EXPECT_NEAR(full.displacement, 1.0 / 3, 0.01);
  EXPECT_LT(full.adjacent, 2e-4);
  const Mixing blocked = measure_mixing(kSamples, blocks(50, 20), 1);
  EXPECT_NEAR(blocked.displacement, 1.0 / 3, 0.03);
  EXPECT_NEAR(blocked.adjacent, 2.0 / 1000, 5e-4) << "as a shuffle of one window";
  EXPECT_NEAR(measure_mixing(std::int64_t{1} << 40, {}, 1).displacement, 1.0 / 3, 0.01);
}

TEST(Order, NamesAndWrongOptions) {
  for (const Order order : {Order::sequential, Order::shuffled, Order::blocks}) {
    EXPECT_EQ(parse_order(name_of(order)), order);
  }
  EXPECT_THAT(test::input_error([] { parse_order("random"); }), testing::HasSubstr("'random'"));
  EXPECT_THAT(test::input_error([] { EpochOrder(9, blocks(0, 4), 0, 0); }),
              testing::HasSubstr("blocks of 0"));
  EXPECT_THAT(test::input_error([] { EpochOrder(0, {}, 0, 0); }), testing::HasSubstr("size 0"));
}

}  // namespace
}  // namespace millrace
