#include <CLI/CLI.hpp>
#include <chrono>
#include <fmt/core.h>

#include "app/commands.h"
#include "app/json_log.h"
#include "app/measure.h"
#include "app/options.h"
#include "tensor/config.h"

namespace millrace::app {

namespace {

using Clock = std::chrono::steady_clock;

struct BenchLoaderOptions {
  std::string data;
  std::int64_t batch_size = 512;
  std::string transform = "normalize", dtype = "f32";
  int threads = 0, repeats = 5;
  double seconds = 1;
  bool json = false;
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Batches without an end: the next epoch follows on the last.
class Stream {
 public:
  explicit Stream(Loader& loader)
      : loader_(loader), seen_(static_cast<std::size_t>(loader.dataset().size())) {}

  /// Takes the next batch and gives it back; returns its images. @throws MachineError when one comes twice in
  /// an epoch.
  std::int64_t take() {
    Batch batch;
    if (epoch_ < 0 || !loader_.next(batch)) {
      loader_.epoch(++epoch_);
      std::fill(seen_.begin(), seen_.end(), false);
      loader_.next(batch);
    }
    const Tensor ids = batch.ids();
    const std::int64_t* id = ids.data<std::int64_t>();
    for (std::int64_t i = 0; i < batch.valid(); ++i) {
      if (id[i] < 0 || seen_[static_cast<std::size_t>(id[i])]) {
        throw MachineError("bench loader: sample {} came twice in epoch {}", id[i], epoch_);
      }
      seen_[static_cast<std::size_t>(id[i])] = true;
    }
    return batch.valid();
  }

 private:
  Loader& loader_;
  std::vector<bool> seen_;
  std::int64_t epoch_ = -1;
};

double measure(Stream& stream, double seconds) {
  std::int64_t images = 0;
  const auto start = Clock::now();
  while (images == 0 || seconds_since(start) < seconds) {
    images += stream.take();
  }
  return static_cast<double>(images) / seconds_since(start);
}

void bench_loader(const BenchLoaderOptions& o) {
  LoaderOptions options;
  options.batch_size = o.batch_size;
  options.transforms = o.transform;
  options.dtype = o.dtype == "u8" ? DType::u8 : o.dtype == "bf16" ? DType::bf16 : DType::f32;
  options.threads = allow_workers(o.threads);
  Loader loader{open_dataset(o.data), options};
  Stream stream(loader);
  measure(stream, o.seconds / 2);  // warm-up
  Measurement speed;
  for (int repeat = 0; repeat < o.repeats; ++repeat) {
    speed.images_per_second.push_back(measure(stream, o.seconds));
  }

  if (o.json) {
    const Json result = {{"bench", "loader"},
                         {"version", kVersion},
                         {"processor", processor_name()},
                         {"data", o.data},
                         {"batch_size", o.batch_size},
                         {"transform", o.transform},
                         {"dtype", o.dtype},
                         {"threads", options.threads},
                         {"images_per_second", speed.median()},
                         {"spread", speed.spread()},
                         {"repeats", speed.images_per_second}};
    fmt::print("{}\n", result.dump());
    return;
  }
  fmt::print("{} in batches of {}, {} threads, {}\n", o.data, o.batch_size, options.threads, o.transform);
  fmt::print("{}\n", speed.to_string());
}

}  // namespace

void add_bench_loader(CLI::App& bench) {
  auto options = std::make_shared<BenchLoaderOptions>();
  BenchLoaderOptions& o = *options;
  CLI::App& command = *bench.add_subcommand("loader", "Time reading, decoding and transforming");
  command.add_option("--data", o.data, "images:DIR, cifar10:DIR, idx:DIR or synthetic:N")->required();
  command.add_option("--batch-size", o.batch_size, "Images a batch")->check(at_least(1));
  command.add_option("--transform", o.transform, "e.g. random_crop:4,horizontal_flip,normalize");
  command.add_option("--dtype", o.dtype, "Type of the images: f32, bf16 or u8")
      ->check(CLI::IsMember({"f32", "bf16", "u8"}));
  command.add_option("--threads", o.threads, "Loader workers (0: this process's cores)")->check(at_least(0));
  command.add_option("--repeats", o.repeats, "Timed repeats")->check(at_least(1));
  command.add_option("--seconds", o.seconds, "At least this long each")->check(in_range(0, 1e6));
  command.add_flag("--json", o.json, "Print one JSON object");
  command.callback([options] { bench_loader(*options); });
}

}  // namespace millrace::app
