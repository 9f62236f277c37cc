#include <atomic>
#include <gtest/gtest.h>

#include "nn/models/models.h"
#include "tensor/device_memory.h"
#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

/// SmallNet without dropout, so that its steps can be recorded.
struct PlainNet : nn::Module {
  nn::Conv2d conv{3, 9, {.kernel = 3, .stride = 2, .padding = 1}};
  nn::BatchNorm2d norm{9, {.activation = Activation::relu, .max_pool = true}};
  nn::Linear fc{9 * 2 * 2, 10};
  PlainNet() {
    add("conv", conv);
    add("norm", norm);
    add("fc", fc);
  }
  Variable forward(const Variable& image) override {
    return fc(flatten(max_pool2d(norm(conv(image)), {.kernel = 4})));
  }
};

const Trainer::MakeModule kPlain = [] { return std::make_unique<PlainNet>(); };
const Trainer::MakeModule kLeNet = [] { return nn::make_model("lenet5"); };
const Trainer::MakeModule kResNet = [] { return nn::make_model("resnet20"); };

Loader make_replay_loader(int samples, int shards, DType dtype = DType::f32, std::string_view more = "") {
  return Loader(open_dataset("synthetic:" + std::to_string(samples)),
                {.batch_size = 16,
                 .transforms = "random_crop:4,horizontal_flip," + std::string(more) + "normalize",
                 .dtype = dtype,
                 .tail = Tail::pad,
                 .shards = shards,
                 .threads = 1,
                 .seed = 3});
}

struct ReplayRun {
  Trainer::MakeModule module = kPlain;
  int replicas = 1, shards = 4;
  DType dtype = DType::f32;
  std::int64_t bucket_bytes = 0;
  bool replay = true;
  std::string more = "";
  std::function<void(Trainer&)> between_epochs = [](Trainer&) {};
};

std::atomic<int> calls{0};

/// Two epochs of 70 samples in batches of 16: each ends with a batch of 6, whose last shard of 4 is empty.
Trained train_replayed(const ReplayRun& run) {
  calls = 0;
  Loader loader = make_replay_loader(70, run.shards, run.dtype, run.more);
  Trainer trainer{run.module,
                  kSgd,
                  {.replicas = run.replicas,
                   .shards = run.shards,
                   .dtype = run.dtype,
                   .seed = 5,
                   .bucket_bytes = run.bucket_bytes,
                   .replay = run.replay}};
  const LossFunction loss = [](nn::Module& net, const Batch& batch) {
    ++calls;
    return cross_entropy(net(batch.images()), batch.targets(), {.reduction = Reduction::sum});
  };
  Trained result;
  for (int epoch = 0; epoch < 2; ++epoch) {
    for (const Batch& batch : loader.epoch(epoch)) {
      result.losses.push_back(trainer.step(batch, loss).loss);
    }
    run.between_epochs(trainer);
  }
  result.hash = trainer.weights_hash();
  return result;
}

/// The loss function's calls that are left: in each epoch 4 full batches and one with 1 full shard, 1 of 2
/// samples and 2 empty ones.
constexpr int kAllCalls = 2 * (4 * 4 + 2);
/// For a replica that sees full shards: one pass before it records, and the pass that it records; and the
/// short shards.
constexpr int calls_with(int replicas) { return 2 * replicas + 2; }

TEST(Replay, NeverChangesABit) {
  for (const auto& module : {kPlain, kLeNet, kResNet}) {
    ReplayRun run{.module = module, .replay = false};
    const Trained plain = train_replayed(run);
    EXPECT_EQ(calls, kAllCalls);
    run.replay = true;
    for (const int replicas : {1, 2, 4}) {
      run.replicas = replicas;
      EXPECT_EQ(train_replayed(run), plain) << replicas;
      EXPECT_EQ(calls, calls_with(replicas)) << replicas;
    }
  }
}

TEST(Replay, InBf16AndWithMixedSamples) {
  if (!cpu::has_bf16()) {
    GTEST_SKIP() << "this processor has no bf16";
  }
  for (ReplayRun run : {ReplayRun{.dtype = DType::bf16}, ReplayRun{.more = "mixup:0.4,"}}) {
    const Trained replayed = train_replayed(run);
    EXPECT_EQ(calls, calls_with(1));
    run.replay = false;
    EXPECT_EQ(train_replayed(run), replayed);
  }
}

TEST(Replay, DropoutAndBucketsRunAsEver) {
  for (ReplayRun run : {ReplayRun{.module = make_small_net}, ReplayRun{.replicas = 2, .bucket_bytes = 256}}) {
    const Trained asked = train_replayed(run);
    EXPECT_EQ(calls, kAllCalls);
    run.replay = false;
    EXPECT_EQ(train_replayed(run), asked);
  }
}

/// What may change the network between steps is heard of.
TEST(Replay, RecordsAnewWhereTheNetworkMayHaveChanged) {
  const std::vector<std::function<void(Trainer&)>> changes = {
      [](Trainer& trainer) { trainer.module().named_parameters()[1].second.set_requires_grad(false); },
      [](Trainer& trainer) { trainer.restore(trainer.state()); },
      [](Trainer& trainer) {
        Loader loader = make_replay_loader(20, 1);
        trainer.evaluate(loader);
      }};
  for (const auto& change : changes) {
    ReplayRun run{.between_epochs = change};
    const Trained replayed = train_replayed(run);
    EXPECT_EQ(calls, calls_with(1) + 2);
    run.replay = false;
    EXPECT_EQ(train_replayed(run), replayed);
  }
  EXPECT_NE(train_replayed({.between_epochs = changes[0]}).hash, train_replayed({}).hash);
}

Variable half_of_losses(nn::Module& net, const Batch& batch) { return sum_of_losses(net, batch) * 0.5; }

TEST(Replay, ANewLossFunctionIsCalled) {
  const auto train = [](bool replay) {
    Loader loader = make_replay_loader(64, 4);
    Trainer trainer{kPlain, kSgd, {.replicas = 2, .shards = 4, .seed = 5, .replay = replay}};
    for (const Batch& batch : loader.epoch(0)) {
      trainer.step(batch, sum_of_losses);
    }
    for (const Batch& batch : loader.epoch(1)) {
      trainer.step(batch, [](nn::Module& net, const Batch& b) { return sum_of_losses(net, b) * 2; });
    }
    for (const Batch& batch : loader.epoch(1)) {
      trainer.step(batch, sum_of_losses);
    }
    for (const Batch& batch : loader.epoch(2)) {
      trainer.step(batch, &half_of_losses);
    }
    return trainer.weights_hash();
  };
  EXPECT_EQ(train(true), train(false));
}

/// After some steps another trainer, with another number of replicas, goes on.
TEST(Replay, ResumesInTheMiddle) {
  Loader loader = make_replay_loader(70, 4);
  const auto trainer_of = [](int replicas) {
    return std::make_unique<Trainer>(
        kPlain, kSgd, TrainerOptions{.replicas = replicas, .shards = 4, .seed = 5, .replay = true});
  };
  auto trainer = trainer_of(2);
  for (int epoch = 0; epoch < 2; ++epoch) {
    for (const Batch& batch : loader.epoch(epoch)) {
      if (trainer->steps() % 3 == 2) {
        const TrainerState state = trainer->state();
        trainer = trainer_of(trainer->replicas() % 4 + 1 == 3 ? 4 : 1);
        trainer->restore(state);
      }
      trainer->step(batch, sum_of_losses);
    }
  }
  EXPECT_EQ(trainer->weights_hash(), train_replayed({.replay = false}).hash);
}

/// Values read on the host cannot be replayed, nor can a loss that outlives its step.
TEST(Replay, ALossThatIsMoreThanKernelsIsCalledInEachStep) {
  Variable last;
  const std::vector<LossFunction> losses = {
      [](nn::Module& net, const Batch& batch) {
        const Variable loss = sum_of_losses(net, batch);
        return loss.item() > 0 ? loss : loss * 2;
      },
      [&](nn::Module& net, const Batch& batch) { return last = sum_of_losses(net, batch); }};
  for (const LossFunction& loss : losses) {
    int called = 0;
    Loader loader = make_replay_loader(64, 1);
    Trainer trainer{kPlain, kSgd, {.replicas = 1, .shards = 1, .seed = 5, .replay = true}};
    for (int epoch = 0; epoch < 2; ++epoch) {
      for (const Batch& batch : loader.epoch(epoch)) {
        trainer.step(batch, [&](nn::Module& net, const Batch& b) {
          ++called;
          return loss(net, b);
        });
      }
    }
    EXPECT_EQ(called, 8);
  }
}

}  // namespace
}  // namespace millrace
