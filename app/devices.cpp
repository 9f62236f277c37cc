#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <unistd.h>

#include "app/commands.h"
#include "app/options.h"
#include "base/cores.h"
#include "distributed/gpus/nccl_communicator.h"
#include "pipeline/training/run_description.h"
#include "tensor/config.h"
#include "tensor/device_memory.h"

namespace millrace::app {

namespace {

std::string instruction_sets() {
  std::string sets;
  const auto add = [&](bool has, const char* name) {
    if (has) {
      sets += (sets.empty() ? "" : " ") + std::string(name);
    }
  };
  __builtin_cpu_init();
  add(__builtin_cpu_supports("sse4.2"), "sse4.2");
  add(__builtin_cpu_supports("avx2"), "avx2");
  add(__builtin_cpu_supports("fma"), "fma");
  add(__builtin_cpu_supports("avx512f"), "avx512f");
  add(__builtin_cpu_supports("avx512bw"), "avx512bw");
  add(__builtin_cpu_supports("avx512vnni"), "avx512vnni");
  add(__builtin_cpu_supports("avx512bf16"), "avx512bf16");
  return sets;
}

void devices() {
  const double gigabytes =
      static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 1e9;
  fmt::print("millrace {}\n", kVersion);
  fmt::print("cpu: {}, {} cores for this process, {:.0f} GB of memory\n", processor_name(), available_cores(),
             gigabytes);
  fmt::print("  instruction sets: {}\n", instruction_sets());
  fmt::print("  bf16: {}\n", __builtin_cpu_supports("avx512bf16") ? "in hardware" : "no hardware support");
  fmt::print("  oneDNN {}\n", cpu::onednn_version());
  const int count = cuda_device_count();
  fmt::print("cuda: {}\n", count == 0   ? "none, the CPU is used: " + cuda_unavailable_reason()
                           : count == 1 ? "1 GPU"
                                        : fmt::format("{} GPUs", count));
  if constexpr (kWithCuda) {
    for (int i = 0; i < count; ++i) {
      fmt::print("  cuda:{}: {}\n", i, cuda::describe_device(i));
    }
    fmt::print("  {}, NCCL {}\n", cuda::describe_libraries(), describe_nccl());
  }
}

}  // namespace

void add_devices(CLI::App& app) {
  app.add_subcommand("devices", "Show the processor and the GPUs that can be used")->callback(devices);
}

}  // namespace millrace::app
