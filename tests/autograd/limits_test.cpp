#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "tests/tensor/sample.h"

/// Where a factor of zero meets an infinite one.
namespace millrace {
namespace {

using testing::DoubleNear;
using testing::Each;
using testing::Pointwise;

TEST(Limits, APowerOfZeroHasNoSlope) {
  const Variable x(tensor({0, 2, -1}), true);
  sum(pow(x, 0)).backward();
  EXPECT_THAT(test::values(x.grad()), Each(0));
  const Variable y(tensor({0, 2, -1}), true);
  sum(pow(y, 1)).backward();
  EXPECT_THAT(test::values(y.grad()), Each(1));
}

TEST(Limits, CrossEntropyOfMaskedClasses) {
  for (DType dtype : {DType::f32, DType::f64}) {
    const Variable logits(tensor({{0, -HUGE_VAL, 0}, {-HUGE_VAL, 1, 1}}, {.dtype = dtype}), true);
    const Variable loss =
        cross_entropy(logits, tensor({2, 1}, {.dtype = DType::i64}), {.reduction = Reduction::sum});
    EXPECT_NEAR(loss.item(), 2 * std::log(2.0), 1e-6) << name_of(dtype);
    loss.backward();
    const std::vector<double> expected{0.5, 0, -0.5, 0, -0.5, 0.5};
    EXPECT_THAT(test::values(logits.grad()), Pointwise(DoubleNear(1e-6), expected)) << name_of(dtype);
  }
}

}  // namespace
}  // namespace millrace
