#include "tensor/ops/random.h"

#include <cmath>
#include <gtest/gtest.h>
#include <set>
#include <vector>

#include "base/philox.h"
#include "tests/tensor/sample.h"

namespace millrace {
namespace {

// Vectors of the paper's own implementation (Random123, kat_vectors).
TEST(Philox, MatchesThePublishedVectors) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Generator, TensorsHoldTheSameNumbersAsSingleDraws) {
  for (std::int64_t count : {1, 4, 63, 64, 65, 1000}) {
    Generator one(7), many(7);
    const Tensor x = rand({count}, many);
    for (std::int64_t i = 0; i < count; ++i) {
      ASSERT_EQ(x.data<float>()[i], one.uniform());
    }
    EXPECT_EQ(x.numel(), count);
  }
}

TEST(Generator, SeedsDifferAndRepeat) {
  Generator a(1), b(1), c(2);
  const Tensor x = randn({100}, a);
  EXPECT_EQ(test::values(x), test::values(randn({100}, b)));
  EXPECT_NE(test::values(x), test::values(randn({100}, c)));
  EXPECT_NE(test::values(x), test::values(randn({100}, a)));  // the stream moves on
}

TEST(Generator, UniformFillsItsRangeInEveryType) {
  for (DType dtype : test::kFloatingTypes) {
    Generator generator(3);
    const std::vector<double> numbers = test::values(rand({100000}, generator, {.dtype = dtype}));
    double sum = 0;
    for (double v : numbers) {
      ASSERT_GE(v, 0);
      ASSERT_LT(v, 1);
      sum += v;
    }
    EXPECT_NEAR(sum / 100000, 0.5, 0.005) << name_of(dtype);
  }
  Generator generator;
  EXPECT_THROW(rand({2}, generator, {.dtype = DType::i32}), InputError);
}

TEST(Generator, NormalHasItsMomentsAndTails) {
  for (DType dtype : test::kFloatingTypes) {
    Generator generator(5);
    const std::int64_t count = 200001;
    double sums[5] = {};
    int beyond_two = 0;
    for (double v : test::values(randn({count}, generator, {.dtype = dtype}))) {
      for (int k = 1; k < 5; ++k) {
        sums[k] += std::pow(v, k) / static_cast<double>(count);
      }
      beyond_two += std::abs(v) > 2;
    }
    EXPECT_NEAR(sums[1], 0, 0.01);
    EXPECT_NEAR(sums[2], 1, 0.015);
    EXPECT_NEAR(sums[3], 0, 0.04);
    EXPECT_NEAR(sums[4], 3, 0.1);
    EXPECT_NEAR(beyond_two / static_cast<double>(count), 0.0455, 0.003) << name_of(dtype);
  }
  Generator generator(9);
  double square = 0;
  for (int i = 0; i < 20000; ++i) {
    square += std::pow(generator.normal(), 2) / 20000;
  }
  EXPECT_NEAR(square, 1, 0.05);
}

TEST(Generator, BelowIsUniformForAwkwardBounds) {
  Generator generator(11);
  for (std::uint64_t bound : {1, 2, 3, 7, 10}) {
    std::vector<int> counts(bound, 0);
    for (int i = 0; i < 30000; ++i) {
      ++counts[generator.below(bound)];
    }
    for (int count : counts) {
      EXPECT_NEAR(count * static_cast<double>(bound) / 30000, 1, 0.1);
    }
  }
  const std::uint64_t huge = (std::uint64_t{3} << 62) + 1;
  int low = 0;
  for (int i = 0; i < 3000; ++i) {
    const std::uint64_t value = generator.below(huge);
    ASSERT_LT(value, huge);
    low += value < huge / 3;
  }
  EXPECT_NEAR(low / 3000.0, 1 / 3.0, 0.04);
  EXPECT_THROW(generator.below(0), InputError);
}

}  // namespace
}  // namespace millrace
