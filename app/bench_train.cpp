#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <fmt/format.h>
#include <limits>
#include <optional>

#include "app/commands.h"
#include "app/options.h"
#include "app/output/json_log.h"
#include "app/output/measure.h"
#include "app/output/profile.h"
#include "dataio/random_images.h"
#include "nn/work.h"
#include "pipeline/training/feeder.h"
#include "pipeline/training/run_description.h"
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

/// Batches to train on: one that is held throughout, since loading is not what is measured, or with
/// --streamed the loader's.
class Feed {
 public:
  Feed(const BenchTrainOptions& o, const TrainerOptions& trainer)
      : streamed_(o.streamed),
        // What is in an image does not change the time a step takes.
        loader_(std::make_shared<RandomImages>(o.batch_size * (o.streamed ? kStreamedBatches : 1),
                                               RandomImages::Form{}),
                options(o, trainer)) {
    loader_.epoch(0);
    loader_.next(batch_);
    if (o.resident) {
      if (trainer.devices[0].is_cpu() || trainer.shards != 1) {
        throw InputError("bench train: got --resident on {} with {} shards, expected one GPU and --shards 1",
                         to_string(trainer.devices), trainer.shards);
      }
      batch_ = Feeder(trainer.devices[0], trainer.dtype).bring(batch_, 0);
    }
  }

  const Batch& next() {
    const std::int64_t epoch = batch_.epoch();
    if (streamed_ && !loader_.next(batch_)) {
      loader_.epoch(epoch + 1);
      loader_.next(batch_);
    }
    return batch_;
  }
  const Shape& image_shape() const { return loader_.image_shape(); }

 private:
  static constexpr std::int64_t kStreamedBatches = 8;

  static LoaderOptions options(const BenchTrainOptions& o, const TrainerOptions& trainer) {
    LoaderOptions options;
    options.batch_size = o.batch_size;
    options.dtype = feed_type(trainer.devices[0], trainer.dtype, options.transforms);
    options.shards = trainer.shards;
    options.threads = o.compute.threads;
    if (o.streamed) {
      options.transforms = "random_crop:4,horizontal_flip,normalize";
      options.epochs = std::numeric_limits<std::int32_t>::max();
    }
    return options;
  }

  bool streamed_;
  Loader loader_;
  Batch batch_;
};

struct Measured {
  Measurement speed;
  double first_loss = 0, last_loss = 0;
  std::int64_t steps = 0;
  double idle = 0;  // the share of the time that GPUs waited
  std::int64_t bytes_before = 0, bytes_most = 0;
  double operations = 0;  // of an image, forward
  std::optional<Profile::Report> parts;

  double milliseconds(std::int64_t batch_size) const {
    return 1e3 * static_cast<double>(batch_size) / speed.median();
  }
  double teraflops() const { return 3e-12 * speed.median() * operations; }  // backward is twice forward
};

/// Repeats `step`, then `wait`, which waits for its end.
template <typename Step, typename Wait>
Measurement time_repeats(const BenchTrainOptions& o, const Step& step, const Wait& wait) {
  Measurement speed;
  for (int repeat = 0; repeat < o.repeats; ++repeat) {
    std::int64_t steps = 0;
    const auto start = std::chrono::steady_clock::now();
    for (; steps == 0 || seconds_since(start) < o.seconds; ++steps) {
      step();
    }
    wait();
    speed.images_per_second.push_back(static_cast<double>(steps * o.batch_size) / seconds_since(start));
  }
  return speed;
}

Measured measure_steps(const BenchTrainOptions& o, const TrainerOptions& options) {
  using Clock = std::chrono::steady_clock;
  Feed feed(o, options);
  std::optional<Profile> profile;
  if (o.profile) {
    profile.emplace(options.dtype, options.devices[0]);
  }
  const nn::SgdOptions sgd{.learning_rate = 0.001, .momentum = 0.9, .weight_decay = 5e-4, .nesterov = true};
  Trainer trainer{[&] { return nn::make_model(o.model); }, sgd, options};
  const LossFunction loss = [&](nn::Module& net, const Batch& b) {
    if (profile) {
      profile->watch();
    }
    return cross_entropy(net(b.images()), b.labels(), {.reduction = Reduction::sum});
  };
  StepResult result;
  const auto step = [&] { result = trainer.step(feed.next(), loss); };
  const auto mean_loss = [&] { return result.loss / static_cast<double>(result.valid); };  // waits for a GPU

  Measured measured;
  measured.operations = nn::measure_work(*nn::make_model(o.model), feed.image_shape()).forward_operations;
  measured.bytes_before = resident_memory().now;
  step();
  if (profile) {
    profile->start();  // the convolutions of one step are enough
  }
  measured.first_loss = mean_loss();
  for (const auto start = Clock::now(); trainer.steps() < 4 || seconds_since(start) < o.seconds / 2;) {
    step();
  }
  if (profile) {
    profile->start();
  }
  const std::int64_t first_steps = trainer.steps();
  measured.last_loss = mean_loss();
  const double idle_before = trainer.idle_seconds();
  const auto measured_from = Clock::now();
  measured.speed = time_repeats(o, step, [&] { measured.last_loss = mean_loss(); });
  const double seconds = seconds_since(measured_from);
  measured.steps = trainer.steps();
  measured.idle = (trainer.idle_seconds() - idle_before) / seconds;
  measured.bytes_most = resident_memory().most;
  if (profile) {
    measured.parts = profile->report(measured.steps - first_steps, seconds, o.batch_size);
  }
  return measured;
}

void print_json(const BenchTrainOptions& o, const TrainerOptions& options, const Measured& m) {
  const double milliseconds = m.milliseconds(o.batch_size);
  Json result = {{"bench", "train"},
                 {"version", kVersion},
                 {"processor", processor_name()},
                 {"model", o.model},
                 {"batch_size", o.batch_size},
                 {"dtype", o.compute.dtype},
                 {"device", to_string(options.devices)},
                 {"replicas", options.replicas},
                 {"shards", options.shards},
                 {"images_per_second", m.speed.median()},
                 {"spread", m.speed.spread()},
                 {"repeats", m.speed.images_per_second},
                 {"ms_per_step", milliseconds},
                 {"steps_per_second", 1e3 / milliseconds},
                 {"tflops", m.teraflops()},
                 {"gpu_wait", m.idle},
                 {"resident_before", m.bytes_before},
                 {"resident_most", m.bytes_most},
                 {"data", o.resident   ? "resident"
                          : o.streamed ? "streamed"
                                       : "held"},
                 {"steps", m.steps},
                 {"first_loss", m.first_loss},
                 {"last_loss", m.last_loss}};
  if (m.parts) {
    result["profile"] = m.parts->to_json();
  }
  fmt::print("{}\n", to_line(result));
}

void print(const BenchTrainOptions& o, const TrainerOptions& options, const Measured& m) {
  const double milliseconds = m.milliseconds(o.batch_size);
  fmt::print("{:12} {:>6} {:>6} {:>9} {:>7} {:>12} {:>16}\n", "model", "batch", "dtype", "replicas", "shards",
             "ms per step", "images/s");
  fmt::print("{:12} {:>6} {:>6} {:>9} {:>7} {:>12.3f} {:>16}\n", o.model, o.batch_size, o.compute.dtype,
             options.replicas, options.shards, milliseconds, with_commas(m.speed.median()));
  if (options.devices[0].is_cuda()) {
    fmt::print("the GPU waited {:.1f} % of the time\n", 100 * m.idle);
  }
  fmt::print("{}; {:.2f} steps/s, {:.3f} TFLOP/s; loss {:.4f} to {:.4f} over {} steps\n", m.speed.to_string(),
             1e3 / milliseconds, m.teraflops(), m.first_loss, m.last_loss, m.steps);
  fmt::print("{} MB of memory before the first step, {} MB at most\n",
             with_commas(1e-6 * static_cast<double>(m.bytes_before)),
             with_commas(1e-6 * static_cast<double>(m.bytes_most)));
  if (m.parts) {
    fmt::print("{}", m.parts->to_string());
  }
}

void bench_train(const BenchTrainOptions& o) {
  const TrainerOptions options = o.compute.resolve(o.batch_size, 0);
  const Measured measured = measure_steps(o, options);
  // A speed only counts for steps that train: the loss on the same images has to fall.
  if (!std::isfinite(measured.last_loss) || (!o.streamed && !(measured.last_loss < measured.first_loss))) {
    throw MachineError(
        "bench train: the loss went from {} to {} over {} steps on the same images; it should have fallen",
        measured.first_loss, measured.last_loss, measured.steps);
  }
  if (o.json) {
    print_json(o, options, measured);
  } else {
    print(o, options, measured);
  }
}

}  // namespace

void add_bench_train(CLI::App& bench) {
  auto options = std::make_shared<BenchTrainOptions>();
  BenchTrainOptions& o = *options;
  CLI::App& command =
      *bench.add_subcommand("train", "Time whole training steps on random 3x32x32 images in memory");
  command.add_option("--model", o.model, fmt::format("{}", fmt::join(nn::model_names(), ", ")));
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
