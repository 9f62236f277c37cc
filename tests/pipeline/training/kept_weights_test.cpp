#include "tensor/kept_weights.h"

#include <gtest/gtest.h>
#include <thread>

#include "distributed/threads/communicator.h"
#include "nn/optimizers/lookahead.h"
#include "nn/state.h"
#include "tensor/ops.h"
#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

struct Conv : nn::Module {
  nn::Conv2d conv{16, 32, {.kernel = 3, .padding = 1, .bias = false}};
  Conv() { add("conv", conv); }
  Variable forward(const Variable& x) override { return conv(x); }
};

Tensor draw(const Shape& shape, std::uint64_t seed) {
  Generator generator(seed);
  return randn(shape, generator).contiguous(MemoryFormat::channels_last);
}

/// Runs `change` on a network whose weights are kept, and expects that they are prepared anew.
void expect_seen(Conv& net, const std::function<void()>& change) {
  const NoGradScope no_grad;
  const Tensor x = draw({2, 16, 6, 6}, 1);
  KeptWeights kept;
  const auto with_kept = [&] {
    const KeptWeights::Use use(kept);
    return net(x).data();
  };
  const Tensor before = with_kept();
  ASSERT_EQ(kept.size(), 1u);
  change();
  const Tensor after = with_kept();
  EXPECT_FALSE(all_close(after, before, 0, 0));
  EXPECT_TRUE(all_close(after, net(x).data(), 0, 0));
}

void step(nn::Optimizer& optimizer, nn::FlatParameters& flat) {
  flat.gradients().copy_(draw(flat.gradients().shape(), 2));
  optimizer.step({.number = 0});
}

TEST(KeptWeights, FollowEveryOptimizer) {
  for (const nn::OptimizerOptions& options : nn::optimizer_kinds()) {
    Conv net;
    nn::FlatParameters flat(net);
    nn::Optimizer optimizer(flat, options);
    SCOPED_TRACE(optimizer.describe());
    expect_seen(net, [&] { step(optimizer, flat); });
    expect_seen(net, [&] { step(optimizer, flat); });
  }
}

TEST(KeptWeights, FollowStatesAndAverages) {
  Conv net;
  nn::FlatParameters flat(net);
  nn::Optimizer optimizer(flat, kSgd);
  nn::Lookahead lookahead(flat, net, {.every = 1});
  expect_seen(net, [&] { nn::load_state_dict(net, nn::state_dict(Conv())); });
  expect_seen(net, [&] { lookahead.exchange(); });
  expect_seen(net, [&] { lookahead.finish(); });
  expect_seen(net, [&] {
    step(optimizer, flat);
    lookahead.after_step(1);
  });
}

TEST(KeptWeights, FollowABroadcast) {
  auto group = make_thread_group(2, std::chrono::seconds(30));
  std::thread peer([&] {
    Tensor sent = draw({32, 16, 3, 3}, 3).contiguous();
    group[0]->broadcast(sent, 0, {});
  });
  Conv net;
  nn::FlatParameters flat(net);
  expect_seen(net, [&] { group[1]->broadcast(net.conv.weight.data(), 0, {}); });
  peer.join();
}

struct Net : nn::Module {
  nn::Conv2d conv1{3, 24, {.kernel = 3, .stride = 2}}, conv2{24, 32, {.kernel = 3, .max_pool = true}};
  nn::Linear fc{32, 10};
  Net() {
    add("conv1", conv1);
    add("conv2", conv2);
    add("fc", fc);
  }
  Variable forward(const Variable& x) override {
    return fc(flatten(max_pool2d(relu(conv2(relu(conv1(x)))), {.kernel = 6})));
  }
};

/// With one replica its weights are kept over four shards, and over the pieces of an evaluation.
Trained train(int replicas, bool replay) {
  const auto loader_of = [](Tail tail) {
    return Loader(open_dataset("synthetic:320"),
                  {.batch_size = 64, .transforms = "normalize", .tail = tail, .shards = 4, .threads = 1});
  };
  Loader loader = loader_of(Tail::drop), tests = loader_of(Tail::pad);
  Trainer trainer{
      [] { return std::make_unique<Net>(); }, kSgd, {.replicas = replicas, .shards = 4, .replay = replay}};
  const auto write_through_pointers = [&] {
    for (auto& [name, tensor] : nn::state_dict(trainer.module())) {
      if (tensor.dim() == 4) {
        tensor.data<float>()[0] += 0.5f;
      }
    }
  };
  Trained result;
  for (int epoch = 0; epoch < 2; ++epoch) {
    loader.epoch(epoch);
    Batch batch;
    for (int i = 0; i < 2 && loader.next(batch); ++i) {
      result.losses.push_back(static_cast<double>(trainer.step(batch, sum_of_losses).loss));
      write_through_pointers();
    }
    for (int i = 0; i < 2; ++i) {
      result.losses.push_back(trainer.evaluate(tests).loss);
      write_through_pointers();
    }
  }
  result.hash = trainer.weights_hash();
  return result;
}

TEST(KeptWeights, ChangeNoBitOfATraining) {
  const Trained expected = train(4, false);
  for (const bool replay : {false, true}) {
    const Trained got = train(1, replay);
    EXPECT_EQ(got, expected) << replay;
  }
}

}  // namespace
}  // namespace millrace
