#include "nn/work.h"

#include <gtest/gtest.h>

#include "autograd/function.h"
#include "nn/layers/convolution.h"
#include "nn/layers/linear.h"
#include "nn/models/models.h"

namespace millrace {
namespace {

TEST(Work, CountsWhatLenet5sLayersDo) {
  const auto net = nn::make_model("lenet5");
  net->children()[0].second->eval();
  const nn::Work work = nn::measure_work(*net, {3, 32, 32});
  EXPECT_EQ(work.parameters, 62006);
  const double layers = 28.0 * 28 * 6 * 75 + 10.0 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10;
  EXPECT_DOUBLE_EQ(work.forward_operations, 2 * layers);
  EXPECT_TRUE(net->is_training());
  EXPECT_FALSE(net->children()[0].second->is_training()) << "modes stay as they were";
}

TEST(Work, CountsABranchOnceAndASharedLayerTwice) {
  struct Net : nn::Module {
    nn::Linear a{4, 4};
    Net() { add("a", a); }
    Variable forward(const Variable& image) override {
      const Variable once = a(flatten(image));
      return a(once) + once;
    }
  } net;
  EXPECT_DOUBLE_EQ(nn::measure_work(net, {1, 2, 2}).forward_operations, 2.0 * 2 * 16);
}

TEST(Work, CountsWhatAnOperationSaysAndNoFrozenWeight) {
  struct Net : nn::Module {
    nn::Linear trained{4, 3}, frozen{3, 5};
    Net() {
      add("trained", trained), add("frozen", frozen);
      frozen.weight.set_requires_grad(false);
    }
    Variable forward(const Variable& image) override {
      const Variable x = frozen(trained(flatten(image)));
      return record({"of_a_user", 1000}, x.data() * 2, {x}, [](const Tensor&) {
        return [](const Tensor& gradient, InputGradients& inputs) { inputs.add(0, gradient * 2); };
      });
    }
  } net;
  EXPECT_DOUBLE_EQ(nn::measure_work(net, {1, 2, 2}).forward_operations, 2.0 * 4 * 3 + 1000);
}

TEST(Work, FollowsGroupsAndStrides) {
  struct Net : nn::Module {
    nn::Conv2d conv{4, 8, {.kernel = 3, .stride = 2, .padding = 1, .groups = 2}};
    Net() { add("conv", conv); }
    Variable forward(const Variable& image) override { return conv(image); }
  } net;
  EXPECT_DOUBLE_EQ(nn::measure_work(net, {4, 8, 8}).forward_operations, 2.0 * 8 * 16 * (2 * 9));
}

TEST(Work, CountsAConvolutionBeforeItsPooling) {
  struct Net : nn::Module {
    nn::Conv2d large{24, 64, {.kernel = 3, .padding = 1, .max_pool = true}};
    nn::Conv2d small{64, 3, {.kernel = 3, .padding = 1, .max_pool = true}};
    Net() { add("large", large), add("small", small); }
    Variable forward(const Variable& image) override { return small(large(image)); }
  } net;
  EXPECT_DOUBLE_EQ(nn::measure_work(net, {24, 33, 34}).forward_operations,
                   2.0 * (32 * 34 * 64 * (24 * 9) + 16 * 16 * 3 * (64 * 9)));
}

}  // namespace
}  // namespace millrace
