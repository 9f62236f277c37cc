#include "nn/optimizers/lookahead.h"

#include <cmath>
#include <gmock/gmock.h>

#include "nn/layers/linear.h"
#include "nn/layers/norm.h"
#include "tensor/ops.h"

namespace millrace {
namespace {

using nn::Lookahead;
using testing::HasSubstr;

/// A layer with running statistics, and what else a state dictionary has.
struct Net : nn::Module {
  nn::Linear fc{3, 5};
  nn::BatchNorm2d norm{5};
  Net() {
    add("fc", fc);
    add("norm", norm);
  }
  Variable forward(const Variable& x) override { return x; }
};

/// Some change of weights and statistics, as a step would make it.
void drift(Net& net, Generator& random) {
  for (Tensor tensor :
       {net.fc.weight.data(), net.fc.bias.data(), net.norm.running_mean, net.norm.running_var}) {
    tensor.add_(randn(tensor.shape(), random));
  }
}

/// airbench94's, in double: every 5 steps with decay 0.95^5 (t / 20)^3, and wholly the average at the end.
TEST(Lookahead, FollowsItsFormulaStepByStep) {
  const auto decay = [](std::int64_t t) {
    return std::pow(0.95, 5) * std::pow(static_cast<double>(t) / 20, 3);
  };
  for (const bool go_on : {true, false}) {
    Net net;
    nn::FlatParameters flat(net);
    Lookahead lookahead(flat, net, {.every = 5, .decay = decay, .go_on_from_average = go_on});
    Generator random(1);
    drift(net, random);
    lookahead.start();
    const auto of = [&](int i) { return i == 0 ? net.fc.weight.data() : net.norm.running_var; };
    std::array<Tensor, 2> live = {of(0).to(DType::f64).clone(), of(1).to(DType::f64).clone()},
                          average = {live[0].clone(), live[1].clone()};
    for (int t = 1; t <= 20; ++t) {
      const std::array<Tensor, 2> before = {of(0).clone(), of(1).clone()};
      drift(net, random);
      for (int i = 0; i < 2; ++i) {
        live[static_cast<std::size_t>(i)].add_((of(i) - before[static_cast<std::size_t>(i)]).to(DType::f64));
      }
      lookahead.after_step(t);
      for (std::size_t i = 0; i < 2; ++i) {
        if (t % 5 == 0) {
          average[i] = decay(t) * average[i] + (1 - decay(t)) * live[i];
          if (go_on) {
            live[i] = average[i].clone();
          }
        }
        EXPECT_TRUE(all_close(of(static_cast<int>(i)).to(DType::f64), live[i], 1e-5, 1e-5)) << t;
      }
    }
    lookahead.finish();
    EXPECT_TRUE(all_close(of(0).to(DType::f64), average[0], 1e-5, 1e-5));
    EXPECT_TRUE(all_close(of(1).to(DType::f64), average[1], 1e-5, 1e-5));
    EXPECT_EQ(net.norm.num_batches_tracked.item(), 0);
  }
}

TEST(Lookahead, ExchangesAverageAndWeightsAndBack) {
  Net net;
  nn::FlatParameters flat(net);
  Lookahead lookahead(flat, net, {.go_on_from_average = false});
  Generator random(1);
  const Tensor first = net.fc.weight.data().clone();
  drift(net, random);
  const Tensor second = net.fc.weight.data().clone(), mean = net.norm.running_mean.clone();
  lookahead.exchange();
  EXPECT_TRUE(all_close(net.fc.weight.data(), first, 0, 0));
  EXPECT_TRUE(all_close(net.norm.running_mean, zeros({5}), 0, 0));
  lookahead.exchange();
  EXPECT_TRUE(all_close(net.fc.weight.data(), second, 0, 0));
  EXPECT_TRUE(all_close(net.norm.running_mean, mean, 0, 0));
}

TEST(Lookahead, AChangeOfWeightsIsSeen) {
  Net net;
  nn::FlatParameters flat(net);
  Lookahead lookahead(flat, net, {});
  const Variable x(ones({1, 3}), true);
  const Variable out = sum(net.fc(x));
  lookahead.finish();
  EXPECT_THROW(out.backward(), InputError);
}

TEST(Lookahead, RefusesWrongOptions) {
  Net net;
  nn::FlatParameters flat(net);
  EXPECT_THROW(Lookahead(flat, net, {.every = 0}), InputError);
  EXPECT_THROW(Lookahead(flat, net, {.decay = {}}), InputError);
  Lookahead lookahead(flat, net, {.every = 2, .decay = [](std::int64_t) { return 1.5; }});
  lookahead.after_step(1);
  try {
    lookahead.after_step(2);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("got a decay of 1.5 after 2 steps, expected a number from 0 to 1"));
  }
}

}  // namespace
}  // namespace millrace
