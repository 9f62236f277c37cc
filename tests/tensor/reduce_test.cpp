#include <cmath>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <limits>

#include "tests/tensor/sample.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;

/// The elements of `x` that meet in each result, by loops.
std::vector<std::vector<double>> groups(const Tensor& x, const std::vector<int>& dims) {
  Shape kept = x.shape();
  for (int d = 0; d < x.dim(); ++d) {
    const bool reduced = dims.empty() || std::any_of(dims.begin(), dims.end(),
                                                     [&](int v) { return (v + x.dim()) % x.dim() == d; });
    if (reduced) {
      kept[d] = 1;
    }
  }
  std::vector<std::vector<double>> result(static_cast<std::size_t>(kept.numel()));
  const std::vector<double> all = test::values(x);
  for (std::int64_t n = 0; n < x.numel(); ++n) {
    std::int64_t rest = n, place = 0, scale = 1;
    for (int d = x.dim() - 1; d >= 0; --d) {
      place += (kept[d] == 1 ? 0 : rest % x.shape()[d]) * scale;
      scale *= kept[d];
      rest /= x.shape()[d];
    }
    result[static_cast<std::size_t>(place)].push_back(all[static_cast<std::size_t>(n)]);
  }
  return result;
}

double total(const std::vector<double>& group) {
  double sum = 0;
  for (double v : group) {
    sum += v;
  }
  return sum;
}

void expect_groups(const Tensor& got, const std::vector<std::vector<double>>& expected,
                   double (*reference)(const std::vector<double>&), const std::string& what) {
  const std::vector<double> numbers = test::values(got);
  ASSERT_EQ(numbers.size(), expected.size()) << what;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const double value = reference(expected[i]);
    ASSERT_NEAR(numbers[i], value, 4 * test::epsilon(got.dtype()) * std::abs(value) + 1e-6)
        << what << " at " << i;
  }
}

TEST(Reduce, MatchesLoopsForAllTypesAxesAndLayouts) {
  auto engine = test::random_engine();
  const std::vector<int> axes[] = {{}, {0}, {1}, {-1}, {0, 2, 3}, {2, 3}, {1, 3}, {0, 1, 2, 3}};
  for (DType dtype : test::kAllTypes) {
    for (const Shape& shape :
         {Shape{2, 3, 5, 7}, Shape{3, 1, 4, 130}, Shape{1, 70, 1, 1}, Shape{40, 2, 3, 3}}) {
      for (int layout = 0; layout < 3; ++layout) {
        for (const std::vector<int>& dims : axes) {
          Tensor x = test::sample(shape, dtype, engine,
                                  layout == 1 ? MemoryFormat::channels_last : MemoryFormat::row_major);
          if (layout == 2) {
            x = x.slice(-1, 0, shape[-1], 2).transpose(0, 2);
          }
          const auto expected = groups(x, dims);
          const std::string what = fmt::format("{} {} axes [{}] layout {} seed {}", dtype, x.shape(),
                                               fmt::join(dims, ","), layout, test::seed());
          const Tensor s = sum(x, {.dims = dims});
          ASSERT_EQ(s.dtype(), is_floating(dtype) ? dtype : DType::i64);
          expect_groups(s, expected, total, "sum " + what);
          expect_groups(
              max(x, {.dims = dims}), expected,
              [](const std::vector<double>& g) { return *std::max_element(g.begin(), g.end()); },
              "max " + what);
          expect_groups(
              min(x, {.dims = dims}), expected,
              [](const std::vector<double>& g) { return *std::min_element(g.begin(), g.end()); },
              "min " + what);
          const Tensor m = mean(x, {.dims = dims, .keep_dims = true});
          ASSERT_EQ(m.dim(), 4);
          ASSERT_EQ(m.dtype(), is_floating(dtype) ? dtype : DType::f32);
          expect_groups(
              m, expected,
              [](const std::vector<double>& g) { return total(g) / static_cast<double>(g.size()); },
              "mean " + what);
          if (expected[0].size() < 2) {
            continue;
          }
          expect_groups(
              var(x, {.dims = dims}), expected,
              [](const std::vector<double>& g) {
                const double center = total(g) / static_cast<double>(g.size());
                double square = 0;
                for (double v : g) {
                  square += (v - center) * (v - center);
                }
                return square / static_cast<double>(g.size() - 1);
              },
              "var " + what);
        }
      }
    }
  }
}

TEST(Reduce, LongSumsKeepTheirDigits) {
  const std::int64_t count = 10'000'019;
  const Tensor x = full({count}, 0.1f);
  const double expected = static_cast<double>(0.1f) * static_cast<double>(count);
  EXPECT_NEAR(sum(x).item(), expected, expected * 1e-6);
  EXPECT_NEAR(mean(x.narrow(0, 0, count / 7 * 7).view({-1, 7}), {.dims = {0}}).at({3}), 0.1, 1e-7);
  EXPECT_EQ(sum(ones({70000}, {.dtype = DType::bf16})).item(), 70144);  // 70000 rounded once
  EXPECT_EQ(mean(ones({70000}, {.dtype = DType::f16})).item(), 1);      // the sum alone would overflow
  EXPECT_EQ(sum(full({1000}, 3'000'000, {.dtype = DType::i32})).item(), 3e9);
}

TEST(Reduce, ArgmaxTakesTheFirstOfEquals) {
  auto engine = test::random_engine();
  for (DType dtype : test::kAllTypes) {
    const Tensor x = test::sample({3, 40, 5}, dtype, engine).transpose(0, 2);
    for (int dim = 0; dim < 3; ++dim) {
      const Tensor got = argmax(x, dim);
      ASSERT_EQ(got.dtype(), DType::i64);
      const std::vector<double> numbers = test::values(got);
      const auto expected = groups(x, {dim});
      for (std::size_t i = 0; i < expected.size(); ++i) {
        ASSERT_EQ(numbers[i], static_cast<double>(std::max_element(expected[i].begin(), expected[i].end()) -
                                                  expected[i].begin()));
      }
      ASSERT_EQ(argmax(x, dim, true).dim(), 3);
    }
    const auto all = groups(x, {0, 1, 2});
    ASSERT_EQ(argmax(x).item(),
              static_cast<double>(std::max_element(all[0].begin(), all[0].end()) - all[0].begin()));
  }
}

TEST(Reduce, EmptyAndScalar) {
  EXPECT_EQ(sum(zeros({0, 3})).item(), 0);
  EXPECT_THAT(test::values(sum(zeros({0, 3}), {.dims = {0}})), ElementsAre(0, 0, 0));
  EXPECT_TRUE(std::isnan(mean(zeros({0})).item()));
  EXPECT_THROW(max(zeros({0, 3})), InputError);
  EXPECT_THROW(argmax(zeros({0}), 0), InputError);
  EXPECT_EQ(sum(full({}, 3)).item(), 3);
  EXPECT_EQ(max(tensor({-HUGE_VAL, -HUGE_VAL})).item(), -HUGE_VAL);
  EXPECT_EQ(max(tensor({-5, -7}, {.dtype = DType::i32})).item(), -5);
  EXPECT_THROW(sum(zeros({2}), {.dims = {1}}), InputError);
  EXPECT_THROW(sum(zeros({2, 2}), {.dims = {0, -2}}), InputError);
}

TEST(Reduce, SumToUndoesBroadcasting) {
  auto engine = test::random_engine();
  const Tensor x = test::sample({2, 3, 4}, DType::f32, engine);
  EXPECT_EQ(test::values(sum_to(x, {3, 1})), test::values(sum(x, {.dims = {0, 2}, .keep_dims = false})));
  EXPECT_EQ(sum_to(x, {3, 1}).shape(), (Shape{3, 1}));
  EXPECT_EQ(sum_to(x, {}).item(), sum(x).item());
  EXPECT_EQ(sum_to(x, {2, 3, 4}).storage(), x.storage());
  EXPECT_THROW(sum_to(x, {2}), InputError);
  EXPECT_THROW(sum_to(x, {1, 2, 3, 4}), InputError);
}

TEST(Reduce, ResultsOfSumsAreTheSameForEveryLayout) {
  auto engine = test::random_engine();
  const Tensor x = test::sample({4, 6, 9, 11}, DType::f32, engine);
  const Tensor y = x.contiguous(MemoryFormat::channels_last);
  EXPECT_EQ(test::values(sum(x, {.dims = {0, 2, 3}})), test::values(sum(y, {.dims = {0, 2, 3}})));
}

}  // namespace
}  // namespace millrace
