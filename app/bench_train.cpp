#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <fmt/core.h>
#include <limits>
#include <optional>

#include "app/commands.h"
#include "app/json_log.h"
#include "app/measure.h"
#include "app/options.h"
#include "app/profile.h"
#include "nn/work.h"
#include "pipeline/feeder.h"
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
  bool resident = false, streamed = false, profile = false;
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

constexpr std::int64_t kStreamedBatches = 8;

Batch first_batch(Loader& loader) {
  Batch batch;
  loader.epoch(0);
  loader.next(batch);
  return batch;
}

void take_next(Loader& loader, Batch& batch) {
  const std::int64_t epoch = batch.epoch();
  if (!loader.next(batch)) {
    loader.epoch(epoch + 1);
    loader.next(batch);
  }
}

Batch on_device(const Batch& batch, const TrainerOptions& options) {
  if (options.devices[0].is_cpu() || options.shards != 1) {
    throw InputError("bench train: got --resident on {} with {} shards, expected one GPU and --shards 1",
                     to_string(options.devices), options.shards);
  }
  return Feeder(options.devices[0], options.dtype).bring(batch, 0);
}

void bench_train(const BenchTrainOptions& o) {
  using Clock = std::chrono::steady_clock;
  const TrainerOptions options = o.compute.resolve(o.batch_size, 0);
  LoaderOptions loader_options;
  loader_options.batch_size = o.batch_size;
  loader_options.dtype = feed_type(options.devices[0], options.dtype, loader_options.transforms);
  loader_options.shards = options.shards;
  loader_options.threads = o.compute.threads;
  if (o.streamed) {
    loader_options.transforms = "random_crop:4,horizontal_flip,normalize";
    loader_options.epochs = std::numeric_limits<std::int32_t>::max();
  }
  Loader loader{std::make_shared<RandomImages>(o.batch_size * (o.streamed ? kStreamedBatches : 1)),
                loader_options};
  Batch batch = first_batch(loader);  // else held throughout: loading is not what is measured
  if (o.resident) {
    batch = on_device(batch, options);
  }

  const nn::SgdOptions sgd{.learning_rate = 0.001, .momentum = 0.9, .weight_decay = 5e-4, .nesterov = true};
  if (o.profile && !options.devices[0].is_cpu()) {
    throw InputError("bench train: --profile times kernels of the CPU, got {}", to_string(options.devices));
  }
  std::optional<Profile> profile;
  if (o.profile) {
    profile.emplace(options.dtype);
  }
  Trainer trainer{[&] { return nn::make_model(o.model); }, sgd, options};
  const LossFunction loss = [&](nn::Module& net, const Batch& b) {
    if (profile) {
      profile->watch();
    }
    return cross_entropy(net(b.images()), b.labels(), {.reduction = Reduction::sum});
  };
  StepResult result;
  const auto step = [&] {
    if (o.streamed) {
      take_next(loader, batch);
    }
    result = trainer.step(batch, loss);
  };
  const auto mean_loss = [&] { return result.loss / static_cast<double>(result.valid); };  // waits for a GPU

  const std::int64_t bytes_before = resident_memory().now;
  step();
  if (profile) {
    profile->start();  // the convolutions of one step are enough
  }
  const double first_loss = mean_loss();
  for (const auto start = Clock::now(); trainer.steps() < 4 || seconds_since(start) < o.seconds / 2;) {
    step();
  }
  if (profile) {
    profile->start();
  }
  const std::int64_t first_steps = trainer.steps();
  double last_loss = mean_loss();
  Measurement speed;
  const double idle_before = trainer.idle_seconds();
  const auto measured_from = Clock::now();
  for (int repeat = 0; repeat < o.repeats; ++repeat) {
    std::int64_t steps = 0;
    const auto start = Clock::now();
    for (; steps == 0 || seconds_since(start) < o.seconds; ++steps) {
      step();
    }
    last_loss = mean_loss();
    speed.images_per_second.push_back(static_cast<double>(steps * o.batch_size) / seconds_since(start));
  }
  // A speed only counts for steps that train: the loss on the same images has to fall.
  if (!std::isfinite(last_loss) || (!o.streamed && !(last_loss < first_loss))) {
    throw MachineError(
        "bench train: the loss went from {} to {} over {} steps on the same images; it should have fallen",
        first_loss, last_loss, trainer.steps());
  }
  const double measured_seconds = seconds_since(measured_from);
  const double idle = (trainer.idle_seconds() - idle_before) / measured_seconds;
  std::optional<Profile::Report> parts;
  if (profile) {
    parts = profile->report(trainer.steps() - first_steps, measured_seconds, o.batch_size);
  }
  const std::int64_t most_bytes = resident_memory().most;
  const double teraflops =
      3e-12 * speed.median() *
      nn::measure_work(*nn::make_model(o.model), loader.image_shape()).forward_operations;
  const double milliseconds = 1e3 * static_cast<double>(o.batch_size) / speed.median();
  if (o.json) {
    Json result = {{"bench", "train"},
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
                   {"steps_per_second", 1e3 / milliseconds},
                   {"tflops", teraflops},
                   {"gpu_wait", idle},
                   {"resident_before", bytes_before},
                   {"resident_most", most_bytes},
                   {"data", o.resident   ? "resident"
                            : o.streamed ? "streamed"
                                         : "held"},
                   {"steps", trainer.steps()},
                   {"first_loss", first_loss},
                   {"last_loss", last_loss}};
    if (parts) {
      result["profile"] = parts->to_json();
    }
    fmt::print("{}\n", to_line(result));
    return;
  }
  fmt::print("{:12} {:>6} {:>6} {:>9} {:>7} {:>12} {:>16}\n", "model", "batch", "dtype", "replicas", "shards",
             "ms per step", "images/s");
  fmt::print("{:12} {:>6} {:>6} {:>9} {:>7} {:>12.3f} {:>16}\n", o.model, o.batch_size, o.compute.dtype,
             options.replicas, options.shards, milliseconds, with_commas(speed.median()));
  if (options.devices[0].is_cuda()) {
    fmt::print("the GPU waited {:.1f} % of the time\n", 100 * idle);
  }
  fmt::print("{}; {:.2f} steps/s, {:.3f} TFLOP/s; loss {:.4f} to {:.4f} over {} steps\n", speed.to_string(),
             1e3 / milliseconds, teraflops, first_loss, last_loss, trainer.steps());
  fmt::print("{} MB of memory before the first step, {} MB at most\n",
             with_commas(1e-6 * static_cast<double>(bytes_before)),
             with_commas(1e-6 * static_cast<double>(most_bytes)));
  if (parts) {
    fmt::print("{}", parts->to_string());
  }
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
  CLI::Option* resident = command.add_flag("--resident", o.resident, "The images stay on the GPU");
  command.add_flag("--streamed", o.streamed, "New images each step, from the loader, cropped and flipped")
      ->excludes(resident);
  command.add_flag("--profile", o.profile,
                   "Time each kernel (which slows small batches), and the convolutions alone");
  command.add_flag("--json", o.json, "Print one JSON object");
  command.callback([options] { bench_train(*options); });
}

}  // namespace millrace::app
