#include "pipeline/training/run_description.h"

#include <cstdio>  // jpeglib.h wants it
#include <fmt/format.h>
#include <fstream>
#include <jpeglib.h>
#include <opencv2/core/utility.hpp>
#include <png.h>
#include <set>

#include "base/hash.h"
#include "tensor/config.h"
#include "tensor/device_memory.h"
#include "tensor/gpu/arithmetic.h"

namespace millrace {

namespace {

/// The instructions that this build's own kernels were compiled for.
constexpr std::string_view kInstructions =
#if defined(__AVX512BF16__)
    "AVX-512 bf16";
#elif defined(__AVX512F__)
    "AVX-512";
#elif defined(__AVX2__)
    "AVX2";
#else
    "SSE";
#endif

/// What checkpoints call the order of sums.
constexpr std::string_view kSumOrder = "sums";

std::string describe(const std::vector<std::shared_ptr<const Transform>>& transforms) {
  std::string text;
  for (const auto& transform : transforms) {
    text += fmt::format("{}{}", text.empty() ? "" : ",", transform->describe());
  }
  return text.empty() ? "none" : text;
}

std::string describe(const OrderOptions& order) {
  return order.kind == Order::blocks
             ? fmt::format("blocks of {} in windows of {}", order.block_size, order.window)
             : std::string(name_of(order.kind));
}

}  // namespace

std::string describe_network(nn::Module& network) {
  Hash hash;
  for (const nn::Module* part : network.modules()) {
    hash.add(part->describe());
  }
  return fmt::format("{} {:016x}", network.kind(), hash.value());
}

RunDescription::Values describe_environment(Device device) {
  const auto joined = [](int major, int minor, int patch) {
    return fmt::format("{}.{}.{}", major, minor, patch);
  };
  return {{"millrace", kVersion},
          {"device", device.is_cpu() ? "cpu" : "cuda"},
          {"processor", processor_name()},
          {"instructions", std::string(kInstructions)},
          {"compiler", __VERSION__},
          {"oneDNN", cpu::onednn_version()},
          {"OpenCV", cv::getVersionString()},
          {"libjpeg-turbo",
           joined(LIBJPEG_TURBO_VERSION_NUMBER / 1'000'000, LIBJPEG_TURBO_VERSION_NUMBER / 1000 % 1000,
                  LIBJPEG_TURBO_VERSION_NUMBER % 1000)},
          {"libpng", PNG_LIBPNG_VER_STRING}};
}

RunDescription describe_run(Trainer& trainer, const Loader& loader, RunDescription::Values more) {
  const TrainerOptions& t = trainer.options();
  const LoaderOptions& l = loader.options();
  RunDescription run{std::move(more), describe_environment(t.devices[0])};
  run.options.insert({{"network", describe_network(trainer.module())},
                      {"optimizer", trainer.optimizer().describe()},
                      {"average", t.lookahead ? nn::describe(*t.lookahead) : "none"},
                      {"type", std::string(name_of(t.dtype))},
                      {"tf32", gpu_arithmetic().tf32 ? "yes" : "no"},
                      {"shards", fmt::to_string(t.shards)},
                      {std::string(kSumOrder), t.sum_order == SumOrder::tree ? "tree" : "engine"},
                      {"seed", fmt::to_string(t.seed)},
                      {"batch size", fmt::to_string(l.batch_size)},
                      {"data", describe_data(loader.state())},
                      {"order", fmt::format("{}, seed {}", describe(l.order), l.seed)},
                      {"last batch", l.tail == Tail::pad ? "padded" : "dropped"},
                      {"transforms", l.transforms},
                      {"custom transforms", describe(l.custom_transforms)},
                      {"mean", fmt::format("{}", fmt::join(l.mean, ","))},
                      {"std", fmt::format("{}", fmt::join(l.std, ","))},
                      {"upright photographs", l.decode.exif_orientation ? "yes" : "no"},
                      {"bad samples", std::string(name_of(l.bad_samples))}});
  return run;
}

std::string describe_data(const LoaderState& state) {
  return fmt::format("{} samples {:016x}", state.samples, state.fingerprint);
}

std::string differences(const RunDescription::Values& here, std::string_view where_here,
                        const RunDescription::Values& there, std::string_view where_there) {
  std::set<std::string> names;
  for (const auto* values : {&here, &there}) {
    for (const auto& [name, value] : *values) {
      names.insert(name);
    }
  }
  const auto value_of = [](const RunDescription::Values& values, const std::string& name) {
    const auto found = values.find(name);
    return found == values.end() ? "nothing" : found->second;
  };
  std::string text;
  for (const std::string& name : names) {
    const std::string mine = value_of(here, name), theirs = value_of(there, name);
    if (mine != theirs) {
      const std::string shown = name == kSumOrder ? "order of sums" : name;
      text += fmt::format("{}{}: {} {}, {} {}", text.empty() ? "" : "; ", shown, mine, where_here, theirs,
                          where_there);
    }
  }
  return text;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) {
      return line.substr(line.find(':') + 2);
    }
  }
  return "unknown processor";
}

}  // namespace millrace
