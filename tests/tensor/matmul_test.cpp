#include <algorithm>
#include <cmath>
#include <gmock/gmock.h>

#include "tests/tensor/sample.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Shapes {
  Shape a, b, result;
};

/// Number `place` of the product, of shape `result`, by a loop.
double product_at(const Tensor& a, const Tensor& b, const Shape& result, std::int64_t place) {
  const Tensor left = a.dim() == 1 ? a.unsqueeze(0) : a;
  const Tensor right = b.dim() == 1 ? b.unsqueeze(1) : b;
  const std::int64_t m = left.size(-2), k = left.size(-1), n = right.size(-1);
  const std::int64_t batch = place / (m * n), i = place / n % m, j = place % n;
  Shape left_all = result, right_all = result;
  if (a.dim() == 1) {
    left_all.insert(left_all.size() - (b.dim() > 1), 1);
    right_all = left_all;
  }
  if (b.dim() == 1) {
    left_all.push_back(1);
    right_all = left_all;
  }
  left_all[-1] = k;
  right_all[-2] = k;
  double sum = 0;
  for (std::int64_t p = 0; p < k; ++p) {
    sum += test::broadcast_at(left, left_all, (batch * m + i) * k + p) *
           test::broadcast_at(right, right_all, (batch * k + p) * n + j);
  }
  return sum;
}

TEST(Matmul, MatchesLoops) {
  auto engine = test::random_engine();
  const Shapes table[] = {{{3}, {3}, {}},
                          {{3}, {3, 5}, {5}},
                          {{4, 3}, {3}, {4}},
                          {{4, 3}, {3, 5}, {4, 5}},
                          {{2, 4, 3}, {3, 5}, {2, 4, 5}},
                          {{4, 3}, {2, 3, 5}, {2, 4, 5}},
                          {{2, 4, 3}, {2, 3, 5}, {2, 4, 5}},
                          {{2, 1, 4, 3}, {7, 3, 5}, {2, 7, 4, 5}},
                          {{6, 4, 3}, {3}, {6, 4}},
                          {{1, 1}, {1, 1}, {1, 1}},
                          {{4, 0}, {0, 5}, {4, 5}},
                          {{0, 3}, {3, 5}, {0, 5}}};
  for (DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    for (const Shapes& shapes : table) {
      for (bool transposed : {false, true}) {
        Tensor a = test::sample(shapes.a, dtype, engine);
        Tensor b = test::sample(shapes.b, dtype, engine);
        if (transposed && b.dim() >= 2) {
          b = b.transpose(-1, -2).contiguous().transpose(-1, -2);
        }
        const Tensor got = matmul(a, b);
        ASSERT_EQ(got.shape(), shapes.result);
        const std::vector<double> numbers = test::values(got);
        for (std::int64_t place = 0; place < got.numel(); ++place) {
          const double expected = product_at(a, b, shapes.result, place);
          ASSERT_NEAR(numbers[static_cast<std::size_t>(place)], expected,
                      test::epsilon(dtype) * std::abs(expected) + 1e-5)
              << fmt::format("{} {} {}", dtype, shapes.a, shapes.b);
        }
      }
    }
  }
  EXPECT_THAT(test::input_error([] {
                matmul(ones({2, 3}), ones({4, 5}));
              }),
              AllOf(HasSubstr("[2, 3]"), HasSubstr("[4, 5]")));
  EXPECT_THROW(matmul(ones({}), ones({2})), InputError);
  EXPECT_THROW(matmul(ones({2, 2}, {.dtype = DType::i32}), ones({2, 2}, {.dtype = DType::i32})), InputError);
}

TEST(Matmul, WritesIntoAGivenOutput) {
  const Tensor a = tensor({{1, 2}, {3, 4}}), b = tensor({{1, 1}, {0, 1}});
  Tensor dense = zeros({2, 2}), strided = zeros({2, 2}).t(), operand = a.clone();
  for (Tensor* out : {&dense, &strided, &operand}) {
    const auto version = out->storage()->version();
    matmul(out == &operand ? operand : a, b, *out);
    EXPECT_EQ(test::values(*out), (std::vector<double>{1, 3, 3, 7}));
    EXPECT_GT(out->storage()->version(), version);
  }
  matmul(zeros({2, 0}), zeros({0, 2}), dense);
  EXPECT_EQ(test::values(dense), (std::vector<double>{0, 0, 0, 0}));
  Tensor wrong = zeros({2, 3});
  EXPECT_THROW(matmul(a, b, wrong), InputError);
}

}  // namespace
}  // namespace millrace
