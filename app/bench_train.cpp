#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <fmt/core.h>

#include "app/commands.h"
#include "app/json_log.h"
#include "app/measure.h"
#include "app/options.h"
#include "pipeline/run_description.h"
#include "tensor/config.h"

namespace millrace::app {

namespace {

struct BenchTrainOptions {
  std::string model = "lenet5";
  std::int64_t batch_size = 128;
  ComputeOptions compute;
  int repeats = 5;
  double seconds = 1;
  bool json = false;
};

/// Random pixels in memory: what is in an image does not change the time a step takes.
class RandomImages : public Dataset {
 public:
  explicit RandomImages(std::int64_t count)
      : pixels_(static_cast<std::size_t>(count) * kBytes), count_(count) {
    info_.height = info_.width = kSide;
    info_.classes.assign(kClasses, "class");
    Generator generator(0);
    for (std::byte& pixel : pixels_) {
      pixel = static_cast<std::byte>(generator.next() & 0xffu);
    }
  }
  std::int64_t size() const override { return count_; }
  const DatasetInfo& info() const override { return info_; }
  std::string describe(std::int64_t index) const override { return fmt::format("random image {}", index); }
  Sample read(std::int64_t index, std::vector<std::byte>& /*scratch*/) const override {
    const std::span<const std::byte> bytes(pixels_);
    return {bytes.subspan(static_cast<std::size_t>(index) * kBytes, kBytes),
            Encoding::raw_hwc,
            kSide,
            kSide,
            3,
            index % kClasses};
  }

 private:
  static constexpr int kSide = 32, kClasses = 10;
  static constexpr std::size_t kBytes = kSide * kSide * 3;
  std::vector<std::byte> pixels_;
  std::int64_t count_;
  DatasetInfo info_;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void bench_train(const BenchTrainOptions& o) {
  using Clock = std::chrono::steady_clock;
  const TrainerOptions options = o.compute.resolve(o.batch_size, 0);
  LoaderOptions loader_options;
  loader_options.batch_size = o.batch_size;
  loader_options.dtype = options.dtype;
  loader_options.shards = options.shards;
  loader_options.threads = o.compute.threads;
  Loader loader{std::make_shared<RandomImages>(o.batch_size), loader_options};
  Loader::Epoch epoch = loader.epoch(0);
  const Batch& batch = *epoch.begin();  // held throughout: loading is not what is measured

  const nn::SgdOptions sgd{.learning_rate = 0.001, .momentum = 0.9, .weight_decay = 5e-4, .nesterov = true};
  Trainer trainer{[&] { return nn::make_model(o.model); }, sgd, options};
  const LossFunction loss = [](nn::Module& net, const Batch& b) {
    return cross_entropy(net(b.images()), b.labels(), {.reduction = Reduction::sum});
  };
  const auto mean_loss = [&] {
    const StepResult result = trainer.step(batch, loss);
    return result.loss / static_cast<double>(result.valid);
  };

  const double first_loss = mean_loss();
  double last_loss = first_loss;
  for (const auto start = Clock::now(); trainer.steps() < 4 || seconds_since(start) < o.seconds / 2;) {
    last_loss = mean_loss();
  }
  Measurement speed;
  for (int repeat = 0; repeat < o.repeats; ++repeat) {
    std::int64_t steps = 0;
    const auto start = Clock::now();
    for (; steps == 0 || seconds_since(start) < o.seconds; ++steps) {
      last_loss = mean_loss();
    }
    speed.images_per_second.push_back(static_cast<double>(steps * o.batch_size) / seconds_since(start));
  }
  // A speed only counts for steps that train: the loss on the same images has to fall.
  if (!(last_loss < first_loss)) {
    throw MachineError(
        "bench train: the loss went from {} to {} over {} steps on the same images; it should have fallen",
        first_loss, last_loss, trainer.steps());
  }
  const double milliseconds = 1e3 * static_cast<double>(o.batch_size) / speed.median();
  if (o.json) {
    const Json result = {{"bench", "train"},
                         {"version", kVersion},
                         {"processor", processor_name()},
                         {"model", o.model},
                         {"batch_size", o.batch_size},
                         {"dtype", o.compute.dtype},
                         {"device", to_string(options.devices)},
                         {"replicas", options.replicas},
                         {"shards", options.shards},
                         {"images_per_second", speed.median()},
                         {"spread", speed.spread()},
                         {"repeats", speed.images_per_second},
                         {"ms_per_step", milliseconds},
                         {"steps", trainer.steps()},
                         {"first_loss", first_loss},
                         {"last_loss", last_loss}};
    fmt::print("{}\n", to_line(result));
    return;
  }
  fmt::print("{:12} {:>6} {:>6} {:>9} {:>7} {:>12} {:>16}\n", "model", "batch", "dtype", "replicas", "shards",
             "ms per step", "images/s");
  fmt::print("{:12} {:>6} {:>6} {:>9} {:>7} {:>12.3f} {:>16}\n", o.model, o.batch_size, o.compute.dtype,
             options.replicas, options.shards, milliseconds, with_commas(speed.median()));
  fmt::print("{}; loss {:.4f} to {:.4f} over {} steps\n", speed.to_string(), first_loss, last_loss,
             trainer.steps());
}

}  // namespace

void add_bench_train(CLI::App& bench) {
  auto options = std::make_shared<BenchTrainOptions>();
  BenchTrainOptions& o = *options;
  CLI::App& command =
      *bench.add_subcommand("train", "Time whole training steps on random 3x32x32 images in memory");
  command.add_option("--model", o.model, "lenet5, resnet9, resnet18, resnet20 or airbench94");
  command.add_option("--batch-size", o.batch_size, "Images a step, over all shards")->check(whole_number(1));
  o.compute.add_to(command, true);
  command.add_option("--repeats", o.repeats, "Timed repeats")->check(whole_number(1));
  command.add_option("--seconds", o.seconds, "At least this long each")->check(in_range(0, 1e6));
  command.add_flag("--json", o.json, "Print one JSON object");
  command.callback([options] { bench_train(*options); });
}

}  // namespace millrace::app
