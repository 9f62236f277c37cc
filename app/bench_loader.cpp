#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <exception>
#include <filesystem>
#include <fmt/core.h>
#include <limits>
#include <optional>
#include <thread>

#include "app/commands.h"
#include "app/options.h"
#include "app/output/json_log.h"
#include "app/output/measure.h"
#include "app/output/statistics.h"
#include "base/cores.h"
#include "dataio/order.h"
#include "dataio/sampler.h"
#include "pipeline/image/decode.h"
#include "pipeline/image/execute.h"
#include "pipeline/training/model_file.h"
#include "pipeline/training/run_description.h"
#include "tensor/config.h"

namespace millrace::app {

namespace {

using Clock = std::chrono::steady_clock;

struct BenchLoaderOptions {
  std::string data;
  std::int64_t batch_size = 512;
  std::string transform = "normalize", dtype = "f32";
  OrderChoice order;
  ReadingChoice reading;
  int threads = 0, shards = 1, slabs = 0, repeats = 5;
  double seconds = 1;
  bool compare = false, json = false;
  std::filesystem::path trace;
};

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
    for (int shard = 0; shard < batch.shards(); ++shard) {
      const Slab& slab = batch.shard(shard);
      const auto* id = slab.ids().data<std::int64_t>();
      for (std::int64_t i = 0; i < slab.valid; ++i) {
        if (id[i] < 0 || seen_[static_cast<std::size_t>(id[i])]) {
          throw MachineError("bench loader: sample {} came twice in epoch {}", id[i], epoch_);
        }
        seen_[static_cast<std::size_t>(id[i])] = true;
      }
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

/// What plain threads do a second, each with work of its own: `work(thread, go_on)` returns its images when
/// `go_on()` says no.
template <typename Work>
double on_threads(int threads, double seconds, Work work) {
  std::atomic<std::int64_t> images = 0;
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(threads));
  const auto start = Clock::now();
  {
    std::vector<std::jthread> team;
    for (int thread = 0; thread < threads; ++thread) {
      team.emplace_back([&, thread] {
        try {
          images += work(thread, [&] { return seconds_since(start) < seconds; });
        } catch (...) {
          errors[static_cast<std::size_t>(thread)] = std::current_exception();
        }
      });
    }
  }
  const double took = seconds_since(start);
  for (const std::exception_ptr& error : errors) {
    if (error) {
      std::rethrow_exception(error);
    }
  }
  return static_cast<double>(images) / took;
}

/// The loader's own kernel on plain threads, without graph, order or consumer: what the loader's speed is
/// held against. Each thread fills whole slabs, of as many as the loader has.
class BareLoop {
 public:
  BareLoop(std::shared_ptr<const Dataset> data, const Sampler& sampler, const LoaderOptions& options)
      : executor_(std::move(data), options),
        sampler_(sampler),
        slabs_(static_cast<std::size_t>(options.threads)),
        scratch_(static_cast<std::size_t>(options.threads)) {
    for (int i = 0; i < std::max(options.slabs, options.threads); ++i) {
      slabs_[static_cast<std::size_t>(i % options.threads)].emplace_back(sampler.shard_size(),
                                                                         executor_.fields());
    }
  }

  double measure(double seconds) {
    return on_threads(static_cast<int>(slabs_.size()), seconds, [&](int thread, const auto& go_on) {
      const auto mine = static_cast<std::size_t>(thread);
      std::int64_t images = 0;
      for (std::size_t turn = 0; turn == 0 || go_on(); ++turn) {
        Slab& slab = slabs_[mine][turn % slabs_[mine].size()];
        const PlannedShard planned = sampler_.planned(next_++);
        sampler_.indices(planned,
                         {slab.ids().data<std::int64_t>(), static_cast<std::size_t>(slab.samples())});
        slab.valid = planned.valid;
        executor_.execute(slab, planned.epoch, 0, slab.samples(), scratch_[mine]);
        executor_.finish(slab, planned);
        images += slab.samples();
      }
      return images;
    });
  }

 private:
  SampleExecutor executor_;
  const Sampler& sampler_;
  std::vector<std::vector<Slab>> slabs_;  // of each thread
  std::vector<SampleExecutor::Scratch> scratch_;
  std::atomic<std::int64_t> next_ = 0;
};

/// Reading and decoding every image whole, on plain threads, and nothing else.
double measure_bare_decode(const Dataset& data, int threads, double seconds) {
  std::atomic<std::int64_t> next = 0;
  return on_threads(threads, seconds, [&](int, const auto& go_on) {
    Decoder decoder;
    std::vector<std::byte> bytes;
    std::int64_t images = 0;
    for (; images == 0 || go_on(); ++images) {
      const Sample sample = data.read(next++ % data.size(), bytes);
      decoder.decode(SamplePlan(decoder.open(sample, data.info().channels, {})));
    }
    return images;
  });
}

bool is_encoded(const Dataset& data) {
  std::vector<std::byte> bytes;
  const Encoding encoding = data.read(0, bytes).encoding;
  return encoding == Encoding::jpeg || encoding == Encoding::png;
}

struct LoaderResult {
  Mixing mixing, shuffled;
  Measurement speed, bare, bare_decode;
  std::vector<double> ratios;   ///< Of the loader and the bare loop, measured one after the other.
  LoaderStatistics statistics;  ///< Of the last repeat.
};

LoaderResult run(const BenchLoaderOptions& o, const LoaderOptions& options) {
  const std::shared_ptr<const Dataset> data = open_dataset(o.data, o.reading.open_options());
  Loader loader{data, options};
  Stream stream(loader);
  std::optional<BareLoop> bare_loop;
  const Sampler sampler(data->size(),
                        {.batch_size = o.batch_size, .shards = o.shards, .order = options.order});
  if (o.compare) {
    bare_loop.emplace(data, sampler, options);
  }
  const bool decodes = o.compare && is_encoded(*data);
  LoaderResult result;
  result.mixing = measure_mixing(data->size(), options.order, options.seed);
  result.shuffled = measure_mixing(data->size(), {}, options.seed);
  for (int repeat = -1; repeat < o.repeats; ++repeat) {  // the first one warms up
    for (int i = 0; i < options.slabs; ++i) {            // what was prepared during the pause is not counted
      stream.take();
    }
    const LoaderStatistics before = loader.statistics();
    const double speed = measure(stream, o.seconds);
    result.statistics = loader.statistics().since(before);
    const double bare = bare_loop ? bare_loop->measure(o.seconds) : 0;
    const double bare_decode = decodes ? measure_bare_decode(*data, options.threads, o.seconds) : 0;
    if (repeat < 0) {
      continue;
    }
    result.speed.images_per_second.push_back(speed);
    if (bare_loop) {
      result.bare.images_per_second.push_back(bare);
      result.ratios.push_back(speed / bare);
    }
    if (decodes) {
      result.bare_decode.images_per_second.push_back(bare_decode);
    }
  }
  return result;
}

void print(const BenchLoaderOptions& o, const LoaderOptions& options, const LoaderResult& result) {
  fmt::print("{} in batches of {}, {} threads, {}\n", o.data, o.batch_size, options.threads, o.transform);
  fmt::print("  loader         {}\n", result.speed.to_string());
  if (o.compare) {
    fmt::print("  plain threads  {}; ratio {:.3f}\n", result.bare.to_string(),
               Measurement{result.ratios}.median());
  }
  if (!result.bare_decode.images_per_second.empty()) {
    fmt::print("  decoding alone {}, whole images\n", result.bare_decode.to_string());
  }
  if (options.order.kind != Order::shuffled) {
    fmt::print(
        "  mixing         samples move by {:.1f} % of the data set (shuffled: {:.1f} %), {:.3f} % of the "
        "pairs in a row are neighbours (shuffled: {:.3f} %)\n",
        100 * result.mixing.displacement, 100 * result.shuffled.displacement, 100 * result.mixing.adjacent,
        100 * result.shuffled.adjacent);
  }
  print_statistics(result.statistics);
}

void print_json(const BenchLoaderOptions& o, const LoaderOptions& options, const LoaderResult& result) {
  Json json = {{"bench", "loader"},
               {"version", kVersion},
               {"processor", processor_name()},
               {"data", o.data},
               {"batch_size", o.batch_size},
               {"transform", o.transform},
               {"dtype", o.dtype},
               {"order", o.order.order},
               {"displacement", result.mixing.displacement},
               {"adjacent", result.mixing.adjacent},
               {"reading", o.reading.reading},
               {"shards", o.shards},
               {"slabs", options.slabs},
               {"threads", options.threads},
               {"images_per_second", result.speed.median()},
               {"spread", result.speed.spread()},
               {"repeats", result.speed.images_per_second},
               {"loader", to_json(result.statistics)}};
  if (o.compare) {
    json["bare_images_per_second"] = result.bare.median();
    json["ratio"] = Measurement{result.ratios}.median();
  }
  if (!result.bare_decode.images_per_second.empty()) {
    json["bare_decode_images_per_second"] = result.bare_decode.median();
  }
  fmt::print("{}\n", to_line(json));
}

void bench_loader(const BenchLoaderOptions& o) {
  LoaderOptions options;
  options.batch_size = o.batch_size;
  options.transforms = o.transform;
  options.dtype = o.dtype == "u8" ? DType::u8 : o.dtype == "bf16" ? DType::bf16 : DType::f32;
  options.threads = o.threads > 0 ? o.threads : available_cores();
  options.reader_threads = o.reading.threads();
  options.shards = o.shards;
  options.slabs = o.slabs > 0 ? o.slabs : 2 * o.shards + 1;  // as the loader's default
  options.order = o.order.resolve();
  options.epochs = std::numeric_limits<std::int64_t>::max();  // it goes on until the time is over
  if (!o.trace.empty()) {
    check_can_write(o.trace);
    options.trace = std::make_shared<Trace>(o.trace);
  }
  const LoaderResult result = run(o, options);
  if (o.json) {
    print_json(o, options, result);
  } else {
    print(o, options, result);
  }
  if (options.trace) {
    options.trace->write();
  }
}

}  // namespace

void add_bench_loader(CLI::App& bench) {
  auto options = std::make_shared<BenchLoaderOptions>();
  BenchLoaderOptions& o = *options;
  CLI::App& command = *bench.add_subcommand("loader", "Time reading, decoding and transforming");
  command.add_option("--data", o.data, dataset_kinds())->required();
  command.add_option("--batch-size", o.batch_size, "Images a batch")->check(whole_number(1));
  command.add_option("--transform", o.transform, "e.g. random_crop:4,horizontal_flip,normalize");
  command.add_option("--dtype", o.dtype, "Type of the images: f32, bf16 or u8")
      ->check(CLI::IsMember({"f32", "bf16", "u8"}));
  o.order.add_to(command);
  o.reading.add_to(command);
  command.add_option("--shards", o.shards, "Pieces of a batch")->check(whole_number(1));
  command.add_option("--slabs", o.slabs, "Shards in memory at once (0: twice --shards plus one)")
      ->check(whole_number(0));
  command.add_option("--threads", o.threads, "Loader workers (0: this process's cores)")
      ->check(whole_number(0));
  command.add_option("--repeats", o.repeats, "Timed repeats")->check(whole_number(1));
  command.add_option("--seconds", o.seconds, "At least this long each")->check(in_range(0, 1e6));
  command.add_flag("--compare", o.compare,
                   "Also run the same work on plain threads and show the ratio; for encoded images, decoding "
                   "alone as well");
  command.add_option("--trace", o.trace, "Write a Chrome trace here (Perfetto opens it)");
  command.add_flag("--json", o.json, "Print one JSON object");
  command.callback([options] { bench_loader(*options); });
}

}  // namespace millrace::app
