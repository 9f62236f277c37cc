#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thread>

#include "autograd/function.h"
#include "autograd/ops.h"
#include "tests/tensor/sample.h"

namespace millrace {
namespace {

using test::values;
using testing::ElementsAre;

Variable leaf(std::initializer_list<double> numbers) { return {tensor(numbers), true}; }

TEST(Graph, CanBeWalked) {
  const Variable x = leaf({1, 2}), w = leaf({3, 4});
  const Variable loss = mean(relu(x * w));
  const auto& mean_function = loss.creator();
  ASSERT_TRUE(mean_function);
  EXPECT_EQ(mean_function->name(), "mean");
  const auto relu_function = mean_function->previous_functions().at(0);
  EXPECT_EQ(relu_function->name(), "relu");
  const auto mul_function = relu_function->previous_functions().at(0);
  EXPECT_EQ(mul_function->name(), "mul");
  EXPECT_THAT(mul_function->previous_functions(), ElementsAre(nullptr, nullptr));
  EXPECT_GT(mean_function->sequence(), relu_function->sequence());
  EXPECT_GT(relu_function->sequence(), mul_function->sequence());
  EXPECT_TRUE(x.is_leaf());
  EXPECT_FALSE(loss.is_leaf());
}

TEST(Graph, AThreadContinuesAnothersGraph) {
  const Variable x = leaf({2});
  Variable y = x;
  for (int i = 0; i < 10; ++i) {
    y = y * 1;
  }
  Variable z;
  std::thread([&] { z = sum(exp(y) + y); }).join();  // its own count starts low
  EXPECT_GT(z.creator()->sequence(), y.creator()->sequence());
  z.backward();
  EXPECT_NEAR(x.grad().item(), std::exp(2.0) + 1, 1e-5);
}

TEST(Graph, DetachAndNoGradCutHistory) {
  const Variable x = leaf({1, 2});
  EXPECT_FALSE((x * 2).detach().requires_grad());
  {
    const NoGradScope scope;
    EXPECT_FALSE(grad_enabled());
    EXPECT_FALSE((x * 2).requires_grad());
    { const NoGradScope inner; }
    EXPECT_FALSE(grad_enabled());
  }
  EXPECT_TRUE(grad_enabled());
  const Variable y = x.detach();
  EXPECT_EQ(y.data().raw(), x.data().raw());
  sum(x * y).backward();
  EXPECT_THAT(values(x.grad()), ElementsAre(1, 2));
  EXPECT_FALSE(y.grad().defined());
}

TEST(Graph, DeepChainsNeedNoStack) {
  constexpr int kDepth = 1'000'000;
  const Variable x = leaf({1});
  {
    Variable y = x;
    for (int i = 0; i < kDepth; ++i) {
      y = y + 0.0;
    }
    y.backward();
    EXPECT_EQ(x.grad().item(), 1);
  }
  // Released without a backward pass, also where functions have several uses.
  for (const auto& next : {+[](const Variable& y) { return -y; }, +[](const Variable& y) { return y + y; },
                           +[](const Variable& y) { return y + (-y); }}) {
    Variable y = x;
    for (int i = 0; i < kDepth / 2; ++i) {
      y = next(y);
    }
  }
}

TEST(Graph, DestroyedLateSharedPartsSurvive) {
  const Variable x = leaf({1});
  Variable kept;
  {
    Variable y = x;
    for (int i = 0; i < 10; ++i) {
      y = y * 2;
    }
    kept = y;
    for (int i = 0; i < 10; ++i) {
      y = y * 2;
    }
  }
  kept.backward();
  EXPECT_EQ(x.grad().item(), 1024);
}

}  // namespace
}  // namespace millrace
