#include "nn/module.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sstream>
#include <unordered_set>

#include "nn/init.h"
#include "nn/layers/activation.h"
#include "nn/layers/containers.h"
#include "nn/layers/convolution.h"
#include "nn/layers/dropout.h"
#include "nn/layers/linear.h"
#include "nn/layers/norm.h"
#include "nn/layers/pooling.h"
#include "nn/step_context.h"

namespace millrace {
namespace {

using testing::ElementsAre;

struct Net : nn::Module {
  nn::Conv2d conv1{1, 6, {.kernel = 5}}, conv2{6, 16, {.kernel = 5}};
  nn::Linear fc1{400, 120}, fc2{120, 84}, fc3{84, 10};
  Net() {
    add("conv1", conv1);
    add("conv2", conv2);
    add("fc1", fc1);
    add("fc2", fc2);
    add("fc3", fc3);
  }
  Variable forward(const Variable& image) override {
    Variable x = max_pool2d(relu(conv1(image)), {.kernel = 2});
    x = max_pool2d(relu(conv2(x)), {.kernel = 2});
    return fc3(relu(fc2(relu(fc1(flatten(x))))));
  }
};

std::string printed(const nn::Module& module) {
  std::ostringstream out;
  out << module;
  return out.str();
}

TEST(Module, PrintsAsInTheTutorial) {
  EXPECT_EQ(printed(Net()),
            "Net (\n"
            "  (conv1): Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1))\n"
            "  (conv2): Conv2d(6, 16, kernel_size=(5, 5), stride=(1, 1))\n"
            "  (fc1): Linear (400 -> 120)\n"
            "  (fc2): Linear (120 -> 84)\n"
            "  (fc3): Linear (84 -> 10)\n"
            ")");
}

template <typename T>
std::string kind_of_a_local_class(const T&) {
  struct Local : nn::Module {
    Variable forward(const Variable& x) override { return x; }
  };
  return Local().kind();
}

template <typename T>
struct Holder : nn::Module {
  Variable forward(const Variable& x) override { return x; }
};

TEST(Module, KindIsTheNameOfTheClassAlone) {
  EXPECT_EQ(nn::Linear(1, 1).kind(), "Linear");
  EXPECT_EQ(Net().kind(), "Net");
  EXPECT_EQ(Holder<std::vector<int>>().kind(), "Holder");
  EXPECT_EQ(kind_of_a_local_class(std::vector<int>()), "Local");
}

TEST(Module, PrintsNestedOnesIndented) {
  nn::Sequential outer;
  auto& inner = outer.emplace<nn::Sequential>();
  inner.emplace<nn::Conv2d>(
      4, 8, nn::Conv2dOptions{.kernel = {3, 1}, .stride = 2, .padding = {1, 0}, .groups = 2, .bias = false});
  inner.emplace<nn::BatchNorm2d>(8, nn::BatchNorm2dOptions{.activation = Activation::gelu, .max_pool = true});
  inner.emplace<nn::Conv2d>(8, 8, nn::Conv2dOptions{.kernel = 2, .max_pool = true});
  outer.emplace<nn::ReLU>();
  outer.emplace<nn::MaxPool2d>(Pool2dOptions{.kernel = 2});
  outer.emplace<nn::Dropout>(0.25);
  EXPECT_EQ(printed(outer),
            "Sequential (\n"
            "  (0): Sequential (\n"
            "    (0): Conv2d(4, 8, kernel_size=(3, 1), stride=(2, 2), padding=(1, 0), groups=2, bias=False)\n"
            "    (1): BatchNorm2d(8, eps=1e-05, momentum=0.1, activation=gelu, max_pool=True)\n"
            "    (2): Conv2d(8, 8, kernel_size=(2, 2), stride=(1, 1), max_pool=True)\n"
            "  )\n"
            "  (1): ReLU ()\n"
            "  (2): MaxPool2d(kernel_size=(2, 2), stride=(2, 2))\n"
            "  (3): Dropout(p=0.25)\n"
            ")");
}

TEST(Module, NamesParametersAndBuffersAsPyTorch) {
  nn::Sequential net;
  net.emplace<nn::Conv2d>(3, 4, nn::Conv2dOptions{.kernel = 3});
  net.emplace<nn::BatchNorm2d>(4);
  std::vector<std::string> parameters, buffers;
  for (const auto& [name, parameter] : net.named_parameters()) {
    parameters.push_back(name);
  }
  for (const auto& [name, buffer] : net.named_buffers()) {
    buffers.push_back(name);
  }
  EXPECT_THAT(parameters, ElementsAre("0.weight", "0.bias", "1.weight", "1.bias"));
  EXPECT_THAT(buffers, ElementsAre("1.running_mean", "1.running_var", "1.num_batches_tracked"));
  EXPECT_EQ(Net().parameters().size(), 10u);
  EXPECT_EQ(Net().parameters()[0].shape(), (Shape{6, 1, 5, 5}));
}

TEST(Module, ASharedModuleCountsOnce) {
  nn::Linear layer(2, 2);
  struct Twice : nn::Module {
    explicit Twice(nn::Linear& layer) {
      add("first", layer);
      add("second", layer);
    }
    Variable forward(const Variable& x) override { return x; }
  } twice(layer);
  std::vector<std::string> names;
  for (const auto& [name, parameter] : twice.named_parameters()) {
    names.push_back(name);
  }
  EXPECT_THAT(names, ElementsAre("first.weight", "first.bias"));
  EXPECT_EQ(twice.modules().size(), 2u);
}

TEST(Module, TrainAndEvalReachEveryModule) {
  nn::Sequential net;
  auto& inner = net.emplace<nn::Sequential>();
  auto& dropout = inner.emplace<nn::Dropout>();
  EXPECT_TRUE(dropout.is_training());
  net.eval();
  EXPECT_FALSE(dropout.is_training());
  net.train();
  EXPECT_TRUE(dropout.is_training());
}

TEST(Module, TheTutorialsBackwardFillsEveryGradient) {
  nn::manual_seed(1);
  Net net;
  Generator generator(2);
  const Variable input(randn({1, 1, 32, 32}, generator));
  const Variable out = net(input);
  EXPECT_EQ(out.shape(), (Shape{1, 10}));
  net.zero_grad();
  out.backward(randn({1, 10}, generator));
  for (const auto& [name, parameter] : net.named_parameters()) {
    ASSERT_TRUE(parameter.grad().defined()) << name;
    EXPECT_GT(sum(abs(parameter.grad())).item(), 0) << name;
  }
  EXPECT_FALSE(input.grad().defined());
  net.zero_grad();
  EXPECT_EQ(sum(abs(net.conv1.bias.grad())).item(), 0);
}

TEST(Init, SeedsRepeatAndBoundsArePyTorchs) {
  nn::manual_seed(7);
  const nn::Conv2d first(8, 64, {.kernel = 3});
  const nn::Conv2d second(8, 64, {.kernel = 3});
  nn::manual_seed(7);
  const nn::Conv2d again(8, 64, {.kernel = 3});
  EXPECT_TRUE(all_close(first.weight.data(), again.weight.data(), 0, 0));
  EXPECT_FALSE(all_close(first.weight.data(), second.weight.data()));
  // Uniform within 1 / sqrt(72): the extremes come close, the mean is near 0 and the variance a third of the
  // square.
  const double bound = 1 / std::sqrt(72.0);
  const Tensor& weight = first.weight.data();
  EXPECT_LE(max(weight).item(), bound);
  EXPECT_GE(min(weight).item(), -bound);
  EXPECT_GT(max(weight).item(), 0.99 * bound);
  EXPECT_NEAR(mean(weight).item(), 0, 0.02 * bound);
  EXPECT_NEAR(var(weight).item(), bound * bound / 3, 0.05 * bound * bound);
  EXPECT_LE(max(abs(first.bias.data())).item(), bound);
  EXPECT_GT(max(abs(first.bias.data())).item(), 0.8 * bound);
}

TEST(Init, DiracFiltersPassTheirChannelOn) {
  nn::Conv2d conv(2, 5, {.kernel = {3, 2}, .padding = 1, .bias = false});
  const Tensor others = conv.weight.data().narrow(0, 2, 3).clone();
  nn::init_dirac(conv.weight.data());
  EXPECT_TRUE(all_close(conv.weight.data().narrow(0, 2, 3), others, 0, 0));
  Generator generator(5);
  const Tensor x = randn({3, 2, 4, 6}, generator);
  const Tensor passed = conv(x).data().narrow(1, 0, 2).narrow(3, 0, 6);
  EXPECT_TRUE(all_close(passed, x, 0, 0));
  nn::Linear flat(2, 5);
  EXPECT_THROW(nn::init_dirac(flat.weight.data()), InputError);
}

TEST(BatchNorm2d, MovesRunningStatisticsByTheUnbiasedVariance) {
  nn::BatchNorm2d norm(1, {.momentum = 0.25});
  norm(Variable(tensor({1, 2, 3, 6}).view({4, 1, 1, 1})));
  EXPECT_NEAR(norm.running_mean.item(), 0.25 * 3, 1e-6);
  EXPECT_NEAR(norm.running_var.item(), 0.75 + 0.25 * 14.0 / 3, 1e-6);
  EXPECT_EQ(norm.num_batches_tracked.item(), 1);
  norm.eval();
  norm(Variable(tensor({1, 2}).view({2, 1, 1, 1})));
  EXPECT_EQ(norm.num_batches_tracked.item(), 1);
  EXPECT_NEAR(norm.running_mean.item(), 0.25 * 3, 1e-6);
}

TEST(BatchNorm2d, LearnsNothingFromAnEmptyBatch) {
  nn::BatchNorm2d norm(1, {.momentum = 0.25});
  norm(Variable(tensor({1, 2, 3, 6}).view({4, 1, 1, 1})));
  const double mean = norm.running_mean.item(), var = norm.running_var.item();
  EXPECT_EQ(norm(Variable(zeros({0, 1, 2, 2}))).shape(), (Shape{0, 1, 2, 2}));
  EXPECT_EQ(norm.running_mean.item(), mean);
  EXPECT_EQ(norm.running_var.item(), var);
  EXPECT_EQ(norm.num_batches_tracked.item(), 1);
}

TEST(BatchNorm2d, RefusesASingleValueInTraining) {
  nn::BatchNorm2d norm(3);
  EXPECT_THROW(norm(Variable(ones({1, 3, 1, 1}))), InputError);
  norm.eval();
  EXPECT_NO_THROW(norm(Variable(ones({1, 3, 1, 1}))));
}

TEST(Dropout, FollowsFromTheStepContextAlone) {
  nn::Dropout dropout(0.5);
  const Variable x(ones({8, 40}));
  const auto pass = [&](nn::StepContext context, const Variable& input) {
    nn::step_context() = context;
    return dropout(input).data();
  };
  const nn::StepContext context{.seed = 3, .step = 5};
  const Tensor whole = pass(context, x);
  EXPECT_TRUE(all_close(whole, pass(context, x), 0, 0));
  EXPECT_EQ(nn::step_context().layer, 1u);
  EXPECT_FALSE(all_close(whole, dropout(x).data()));  // the next layer of the same pass
  EXPECT_FALSE(all_close(whole, pass({.seed = 3, .step = 6}, x)));
  EXPECT_FALSE(all_close(whole, pass({.seed = 4, .step = 5}, x)));
  // A shard draws its part of the whole batch's mask.
  const Tensor part = pass({.seed = 3, .step = 5, .first_sample = 6}, Variable(ones({2, 40})));
  EXPECT_TRUE(all_close(part, whole.narrow(0, 6, 2), 0, 0));
  EXPECT_NEAR(mean(equal(whole, 0).to(DType::f32)).item(), 0.5, 0.12);
  EXPECT_EQ(max(whole).item(), 2);
  dropout.eval();
  EXPECT_TRUE(all_close(dropout(x).data(), x.data(), 0, 0));
  EXPECT_THROW(nn::Dropout(1.0), InputError);
  nn::step_context() = {};
}

}  // namespace
}  // namespace millrace
