#include "nn/switches.h"

#include <gmock/gmock.h>

#include "nn/layers/dropout.h"
#include "nn/layers/norm.h"

namespace millrace {
namespace {

using testing::ElementsAre;

struct Inner : nn::Module {
  nn::BatchNorm2d norm{4};
  Inner() { add("norm", norm); }
  Variable forward(const Variable& x) override { return norm(x); }
};

struct Outer : nn::Module {
  Inner inner;
  nn::Dropout drop{0.5};
  Outer() { add("inner", inner), add("drop", drop); }
  Variable forward(const Variable& x) override { return drop(inner(x)); }
};

/// Modules first, parents before children: outer, inner, norm, drop; then weight and bias.
TEST(Switches, SayAndSetEachOne) {
  Outer net;
  nn::Switches switches(net);
  EXPECT_THAT(switches.state(), ElementsAre(1, 1, 1, 1, 1, 1));
  net.inner.eval();
  net.inner.norm.bias.set_requires_grad(false);
  EXPECT_THAT(switches.state(), ElementsAre(1, 0, 0, 1, 1, 0));
  switches.set(std::vector<std::uint8_t>{0, 1, 0, 1, 0, 1});
  EXPECT_THAT(switches.state(), ElementsAre(0, 1, 0, 1, 0, 1));
  EXPECT_FALSE(net.is_training());
  EXPECT_TRUE(net.inner.is_training());
  EXPECT_FALSE(net.inner.norm.weight.requires_grad());
  EXPECT_THROW(switches.set(std::vector<std::uint8_t>(5)), InputError);
}

TEST(EvaluationScope, LeavesModesAsTheyWere) {
  Outer net;
  net.inner.norm.eval();
  {
    const nn::EvaluationScope scope(net);
    EXPECT_FALSE(net.is_training() || net.inner.is_training() || net.drop.is_training());
  }
  EXPECT_TRUE(net.is_training() && net.inner.is_training() && net.drop.is_training());
  EXPECT_FALSE(net.inner.norm.is_training());
}

}  // namespace
}  // namespace millrace
