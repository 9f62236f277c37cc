#include "nn/flat.h"

#include <gtest/gtest.h>

#include "nn/layers/activation.h"
#include "nn/layers/containers.h"
#include "nn/layers/linear.h"
#include "nn/layers/norm.h"
#include "nn/models/models.h"

namespace millrace {
namespace {

using nn::FlatParameters;

const FlatParameters::Slot& slot_of(const FlatParameters& flat, const std::string& name) {
  for (const auto& slot : flat.slots()) {
    if (slot.name == name) {
      return slot;
    }
  }
  throw InputError("no slot {}", name);
}

TEST(FlatParameters, HoldsEachTrainableParameterInReverseOrderOnItsOwnCacheLine) {
  const auto net = nn::make_model("airbench94");
  const auto before = net->named_parameters();
  std::vector<Tensor> values;
  for (const auto& [name, parameter] : before) {
    values.push_back(parameter.data().clone());
  }
  FlatParameters flat(*net);

  std::int64_t end = 0;
  for (const auto& slot : flat.slots()) {
    EXPECT_EQ(slot.offset % 16, 0);
    EXPECT_GE(slot.offset, end);
    EXPECT_LT(slot.offset - end, 16);
    end = slot.offset + slot.size;
    EXPECT_EQ(slot.parameter.data().data<float>(), flat.weights().data<float>() + slot.offset) << slot.name;
    EXPECT_EQ(slot.parameter.grad().data<float>(), flat.gradients().data<float>() + slot.offset) << slot.name;
  }
  EXPECT_EQ(flat.slots().front().name, "head.weight");
  EXPECT_EQ(flat.slots().back().name, "whiten.bias");
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_TRUE(all_close(before[i].second.data(), values[i], 0, 0)) << before[i].first;
  }
  for (const auto& [name, parameter] : before) {
    if (!parameter.requires_grad()) {
      EXPECT_THROW(slot_of(flat, name), InputError);
    }
  }
  EXPECT_GE(flat.gradients().numel(), flat.weights().numel());
}

TEST(FlatParameters, FinishZeroesWhatGotNoGradient) {
  struct Net : nn::Module {
    nn::Linear used{3, 2}, unused{3, 2};
    Net() {
      add("used", used);
      add("unused", unused);
    }
    Variable forward(const Variable& x) override { return used(x); }
  } net;
  FlatParameters flat(net);
  flat.gradients().fill_(7);
  flat.begin();
  sum(net(ones({1, 3}))).backward();
  flat.finish();
  const auto& unused = slot_of(flat, "unused.weight");
  const auto& used = slot_of(flat, "used.weight");
  EXPECT_EQ(max(abs(flat.gradients().narrow(0, unused.offset, unused.size))).item(), 0);
  EXPECT_TRUE(all_close(flat.gradients().narrow(0, used.offset, used.size), ones({6}), 0, 0));
}

TEST(FlatParameters, RefusesANetworkWithNothingToTrain) {
  nn::ReLU relu;
  EXPECT_THROW(FlatParameters{relu}, InputError);
}

/// Two shards' summed statistics move the running ones by the average over their samples.
TEST(FlatParameters, SumsBatchStatisticsOverShards) {
  const auto make = [] {
    auto net = std::make_unique<nn::Sequential>();
    net->emplace<nn::BatchNorm2d>(2, nn::BatchNorm2dOptions{.momentum = 0.25});
    net->emplace<nn::BatchNorm2d>(2);
    return net;
  };
  Generator generator(5);
  const Tensor a = randn({3, 2, 4, 4}, generator), b = randn({1, 2, 4, 4}, generator) * 2 + 1;
  const auto moved_by = [&](const Tensor& x) {
    auto net = make();
    FlatParameters flat(*net, nn::Statistics::immediate);
    EXPECT_EQ(flat.gradients().numel(), flat.weights().numel());
    (*net)(x);
    return net;
  };
  const auto alone_a = moved_by(a), alone_b = moved_by(b);

  const auto net = make();
  FlatParameters flat(*net);
  flat.begin();
  (*net)(a);
  (*net)(b);
  EXPECT_EQ(net->named_buffers()[2].second.item(), 0);
  flat.apply_statistics(4);
  for (std::size_t i = 0; i < 6; ++i) {
    const auto [name, got] = net->named_buffers()[i];
    const Tensor from_a = alone_a->named_buffers()[i].second;
    const Tensor from_b = alone_b->named_buffers()[i].second;
    const Tensor expected = name.ends_with("tracked") ? from_a : from_a * 0.75 + from_b * 0.25;
    EXPECT_TRUE(all_close(got, expected, 1e-5, 1e-6)) << name;
  }
}

TEST(FlatParameters, ABatchNormThatDidNotRunKeepsItsStatistics) {
  struct Net : nn::Module {
    nn::BatchNorm2d used{2}, unused{2};
    Net() {
      add("used", used);
      add("unused", unused);
    }
    Variable forward(const Variable& x) override { return used(x); }
  } net;
  net.unused.running_mean.fill_(3);
  FlatParameters flat(net);
  flat.begin();
  flat.apply_statistics(0);
  EXPECT_EQ(net.used.num_batches_tracked.item(), 0);
  Generator generator(1);
  net(randn({2, 2, 3, 3}, generator));
  flat.apply_statistics(2);
  EXPECT_EQ(net.used.num_batches_tracked.item(), 1);
  EXPECT_EQ(net.unused.num_batches_tracked.item(), 0);
  EXPECT_TRUE(all_close(net.unused.running_mean, full({2}, 3), 0, 0));
  EXPECT_TRUE(all_close(net.unused.running_var, ones({2}), 0, 0));
  flat.begin();
  const Tensor before = net.used.running_mean.clone();
  flat.apply_statistics(2);  // the sums were zeroed
  EXPECT_TRUE(all_close(net.used.running_mean, before, 0, 0));
}

}  // namespace
}  // namespace millrace
