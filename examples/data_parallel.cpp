// Data-parallel training with everything brought along: a module, a data set, a transform and a loss of one's
// own.
#include <cstdio>
#include <millrace/millrace.h>

using namespace millrace;

/// Noisy stripes in three directions, drawn when they are read: nothing is kept in memory.
class Stripes : public Dataset {
 public:
  explicit Stripes(std::int64_t count) : count_(count) {}
  std::int64_t size() const override { return count_; }
  const DatasetInfo& info() const override { return info_; }
  std::string describe(std::int64_t index) const override { return "stripes " + std::to_string(index); }

  Sample read(std::int64_t index, std::vector<std::byte>& scratch) const override {
    SampleRandom random(2024, 0, index);  // the same picture for any thread that reads it
    const auto label = static_cast<int>(random.below(3));
    const auto phase = static_cast<int>(random.below(8));
    scratch.resize(static_cast<std::size_t>(kSide * kSide));
    for (int y = 0; y < kSide; ++y) {
      for (int x = 0; x < kSide; ++x) {
        const int along = label == 0 ? x : label == 1 ? y : x + y;
        const int shade = (along + phase) % 8 < 4 ? 160 : 96;
        scratch[static_cast<std::size_t>(y * kSide + x)] =
            static_cast<std::byte>(shade + static_cast<int>(random.below(64)) - 32);
      }
    }
    return {.bytes = scratch,
            .encoding = Encoding::raw_hwc,
            .height = kSide,
            .width = kSide,
            .channels = 1,
            .label = label};
  }

 private:
  static constexpr int kSide = 16;
  std::int64_t count_;
  DatasetInfo info_{
      .height = kSide, .width = kSide, .channels = 1, .classes = {"vertical", "horizontal", "diagonal"}};
};

/// Moves the picture by up to `reach` pixels each way, by an edit of the plan: no pixel is touched twice.
class Shift : public Transform {
 public:
  explicit Shift(std::int64_t reach) : reach_(reach) {}
  std::string describe() const override { return "shift:" + std::to_string(reach_); }
  void edit(SamplePlan& plan, SampleRandom& random) const override {
    plan.window.top += random.below(2 * reach_ + 1) - reach_;
    plan.window.left += random.below(2 * reach_ + 1) - reach_;
  }

 private:
  std::int64_t reach_;
};

struct Net : nn::Module {
  nn::Conv2d conv1{1, 8, {.kernel = 3, .padding = 1}}, conv2{8, 16, {.kernel = 3, .padding = 1}};
  nn::BatchNorm2d norm{8};
  nn::Linear head{16, 3};
  Net() { add("conv1", conv1), add("norm", norm), add("conv2", conv2), add("head", head); }
  Variable forward(const Variable& image) override {
    const Variable x = max_pool2d(relu(norm(conv1(image))), {.kernel = 2});
    return head(flatten(adaptive_avg_pool2d(relu(conv2(x)), 1)));
  }
};

/// Focal loss (Lin et al., arXiv 1708.02002), summed over the samples: what is learned already weighs little.
Variable focal_loss(nn::Module& net, const Batch& batch) {
  const Variable log_p = gather(log_softmax(net(batch.images()), 1), 1, batch.labels().unsqueeze(1));
  return sum(-pow(1.0 - exp(log_p), 2) * log_p);
}

int main() {
  const auto shift = std::make_shared<Shift>(2);
  Loader loader{
      std::make_shared<Stripes>(4096),
      {.batch_size = 64, .transforms = "normalize", .custom_transforms = {shift}, .shards = 2, .epochs = 3}};
  Loader test{std::make_shared<Stripes>(512),
              {.batch_size = 64, .order = {Order::sequential}, .tail = Tail::pad, .shards = 2}};
  Trainer trainer{
      [] { return std::make_unique<Net>(); },
      nn::SgdOptions{.learning_rate = 0.1, .momentum = 0.9},
      {.replicas = 2, .shards = 2, .schedule = nn::cosine_schedule(3 * loader.steps_per_epoch())}};
  for (int epoch = 0; epoch < 3; ++epoch) {
    StepResult sum;
    for (const Batch& batch : loader.epoch(epoch)) {
      const StepResult step = trainer.step(batch, focal_loss);
      sum.loss = sum.loss + step.loss, sum.valid += step.valid;
    }
    std::printf("epoch %d: loss %.4f\n", epoch + 1, sum.loss / static_cast<double>(sum.valid));
  }
  const Evaluation evaluation = trainer.evaluate(test);
  std::printf("accuracy %.1f %%, weights %s\n", 100 * evaluation.accuracy(), trainer.weights_hash().c_str());
  return evaluation.accuracy() > 0.9 ? 0 : 1;
}
