#include "nn/optimizer.h"

#include <cstring>
#include <gtest/gtest.h>

#include "golden.h"
#include "nn/layers.h"

namespace millrace {
namespace {

using nn::Sgd;
using nn::SgdOptions;

SgdOptions options_of(const nlohmann::json& from) {
  return {.learning_rate = from.value("lr", 0.0),
          .momentum = from.value("momentum", 0.0),
          .weight_decay = from.value("weight_decay", 0.0),
          .nesterov = from.value("nesterov", false)};
}

TEST(Sgd, FollowsPyTorchStepByStep) {
  const auto goldens = golden::read("sgd");
  ASSERT_EQ(goldens.size(), 6u);
  for (const auto& [name, golden] : goldens.items()) {
    const std::string prefix = "sgd/" + name;
    nn::Linear layer(5, 4);
    layer.weight.data().copy_(golden::tensor(prefix + "/weight", {4, 5}));
    layer.bias.data().copy_(golden::tensor(prefix + "/bias", {4}));
    Sgd sgd(layer, options_of(golden["options"]));
    sgd.group("bias", options_of(golden["bias_options"]));
    const nn::Schedule schedule =
        name == "schedule" ? nn::piecewise_linear_schedule({{0, 1}, {6, 0}}) : nn::constant_schedule();
    for (std::size_t step = 0; step < golden["steps"].size(); ++step) {
      const std::string at = fmt::format("/{}", step);
      sgd.zero_grad();
      // A scalar whose gradients are the given ones, four times: the scale takes that back.
      const Variable weight_part = sum(layer.weight * golden::tensor(prefix + "/weight.grad" + at, {4, 5}));
      const Variable bias_part = sum(layer.bias * golden::tensor(prefix + "/bias.grad" + at, {4}));
      ((weight_part + bias_part) * 4).backward();
      sgd.step(schedule(static_cast<std::int64_t>(step)), 0.25);
      const auto& expected = golden["steps"][step];
      EXPECT_LE(golden::error(layer.weight.data(), expected["weight"], prefix + "/weight"), 1e-6)
          << name << at;
      EXPECT_LE(golden::error(layer.bias.data(), expected["bias"], prefix + "/bias"), 1e-6) << name << at;
    }
    EXPECT_EQ(sgd.steps(), 6);
  }
}

TEST(Sgd, AParameterWithoutAGradientOnlyDecays) {
  nn::Linear used(2, 2), unused(2, 2);
  struct Both : nn::Module {
    Both(nn::Linear& a, nn::Linear& b) {
      add("a", a);
      add("b", b);
    }
    Variable forward(const Variable& x) override { return x; }
  } both(used, unused);
  Sgd sgd(both, {.learning_rate = 0.5, .weight_decay = 0.1});
  const Tensor before = unused.weight.data().clone();
  sum(used(ones({1, 2}))).backward();
  sum(unused(ones({1, 2}))).backward();
  sgd.zero_grad();
  sum(used(ones({1, 2}))).backward();
  sgd.step();
  EXPECT_TRUE(all_close(unused.weight.data(), before * 0.95, 1e-6));
}

TEST(Sgd, RefusesWrongOptions) {
  nn::Linear layer(2, 2);
  EXPECT_THROW(Sgd(layer, {.learning_rate = -1}), InputError);
  EXPECT_THROW(Sgd(layer, {.nesterov = true}), InputError);
  Sgd sgd(layer, {});
  try {
    sgd.group("biass", {});
    FAIL();
  } catch (const InputError& error) {
    EXPECT_STREQ(
        error.what(),
        "Sgd: no trainable parameter has \"biass\" in its name; the first is \"weight\", the last \"bias\"");
  }
}

TEST(Sgd, PartsMakeTheWholeStepBitForBit) {
  const auto train = [](const std::vector<std::int64_t>& cuts) {
    nn::manual_seed(3);
    Generator random(4);
    nn::Linear layer(37, 5);  // 185 weights and 5 biases, each from a place that is a multiple of 16
    Sgd sgd(layer, {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01, .nesterov = true});
    sgd.group("bias", {.learning_rate = 0.3, .momentum = 0.5});
    for (int step = 0; step < 3; ++step) {
      sgd.flat().gradients().copy_(randn(sgd.flat().gradients().shape(), random));
      for (std::size_t i = 1; i < cuts.size(); ++i) {
        sgd.step_part(cuts[i - 1], cuts[i], 0.7, 0.25);
      }
    }
    EXPECT_EQ(sgd.steps(), 3);
    return sgd.flat().weights();
  };
  const Tensor whole = train({0, 208});
  for (const std::vector<std::int64_t>& cuts :
       {std::vector<std::int64_t>{0, 16, 208}, {0, 5, 21, 150, 208}}) {
    const Tensor parts = train(cuts);
    ASSERT_EQ(parts.numel(), 208);
    EXPECT_EQ(std::memcmp(parts.data<float>(), whole.data<float>(), 208 * sizeof(float)), 0);
  }
}

TEST(Sgd, AStepCountsAsAChangeOfTheWeights) {
  nn::Linear layer(3, 2);
  Sgd sgd(layer, {});
  const Variable x(ones({1, 3}), true);
  const Variable out = sum(layer(x));
  sgd.step();
  EXPECT_THROW(out.backward(), InputError);  // the input's gradient would be of other weights
}

TEST(Schedule, FollowsItsFormula) {
  EXPECT_EQ(nn::constant_schedule()(1000), 1);
  const auto steps = nn::step_schedule(10, 0.1);
  EXPECT_DOUBLE_EQ(steps(0), 1);
  EXPECT_DOUBLE_EQ(steps(9), 1);
  EXPECT_DOUBLE_EQ(steps(10), 0.1);
  EXPECT_NEAR(steps(29), 0.01, 1e-15);
  const auto cosine = nn::cosine_schedule(100, 0.2);
  EXPECT_DOUBLE_EQ(cosine(0), 1);
  EXPECT_DOUBLE_EQ(cosine(50), 0.6);
  EXPECT_DOUBLE_EQ(cosine(100), 0.2);
  EXPECT_DOUBLE_EQ(cosine(500), 0.2);
  const auto linear = nn::piecewise_linear_schedule({{10, 0.5}, {20, 1}, {40, 0}});
  EXPECT_DOUBLE_EQ(linear(0), 0.5);
  EXPECT_DOUBLE_EQ(linear(15), 0.75);
  EXPECT_DOUBLE_EQ(linear(20), 1);
  EXPECT_DOUBLE_EQ(linear(35), 0.25);
  EXPECT_DOUBLE_EQ(linear(41), 0);
  const auto warm = nn::warm_up(4, nn::step_schedule(2, 0.5));
  EXPECT_DOUBLE_EQ(warm(0), 0.2);
  EXPECT_DOUBLE_EQ(warm(3), 0.8 * 0.5);
  EXPECT_DOUBLE_EQ(warm(4), 0.25);
  EXPECT_THROW(nn::piecewise_linear_schedule({{5, 1}, {5, 0}}), InputError);
  EXPECT_THROW(nn::piecewise_linear_schedule({}), InputError);
  EXPECT_THROW(nn::cosine_schedule(0), InputError);
  EXPECT_THROW(nn::step_schedule(0, 1), InputError);
}

}  // namespace
}  // namespace millrace
