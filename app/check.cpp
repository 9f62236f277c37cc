#include <CLI/CLI.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <fmt/format.h>
#include <mutex>
#include <thread>

#include "app/commands.h"
#include "app/exit_code.h"
#include "app/options.h"
#include "app/output/json_log.h"
#include "app/output/measure.h"
#include "base/cores.h"
#include "distributed/gpus/nccl_communicator.h"
#include "pipeline/training/machine_check.h"
#include "pipeline/training/run_description.h"
#include "tensor/config.h"
#include "tensor/device_memory.h"

namespace millrace::app {

namespace {

struct CheckOptions {
  double seconds = 60;
  bool json = false;
};

constexpr const char* kWhatToDo =
    "do not train where it failed. On a GPU, update the driver and cuDNN; on a CPU, build for this "
    "processor; and "
    "send us this report";

/// The versions of all that computes, by name.
RunDescription::Values versions(const std::vector<Device>& gpus) {
  RunDescription::Values all = describe_environment(kCpu);
  all.erase("device");
  all["processor"] += fmt::format(", {} for this process", counted(available_cores(), "core"));
  if constexpr (kWithCuda) {
    for (const Device gpu : gpus) {
      all[gpu.to_string()] = cuda::describe_device(gpu.index);
    }
    all["GPU libraries"] = fmt::format("{}, NCCL {}", cuda::describe_libraries(), describe_nccl());
  }
  if (gpus.empty()) {
    all["GPUs"] = fmt::format("none, the CPU is checked: {}", cuda_unavailable_reason());
  }
  return all;
}

/// What is printed, and the end of it all when the time is over: nothing else ends a kernel that hangs.
class CheckReport {
 public:
  explicit CheckReport(const CheckOptions& options) : options_(options) {
    limit_ = std::thread([this] {
      std::unique_lock lock(mutex_);
      if (!done_.wait_for(lock, std::chrono::duration<double>(options_.seconds), [&] { return is_done_; })) {
        end(fmt::format(
            "check: not done after {:g} s, at {}; if the machine is only slow, give more --seconds, "
            "else {}",
            options_.seconds, at_, kWhatToDo));
        std::fflush(stdout);
        std::_Exit(kMachineFailed);
      }
    });
  }
  ~CheckReport() { stop(); }
  CheckReport(const CheckReport&) = delete;
  CheckReport& operator=(const CheckReport&) = delete;

  void begin(const RunDescription::Values& versions) {
    const std::lock_guard lock(mutex_);
    report_["versions"] = versions;
    if (!options_.json) {
      for (const auto& [name, version] : versions) {
        fmt::print("{}: {}\n", name, version);
      }
      std::fflush(stdout);
    }
  }

  void begins(const std::string& name) {
    const std::lock_guard lock(mutex_);
    at_ = name;
  }

  void ends(const CheckResult& result) {
    const std::lock_guard lock(mutex_);
    ++count_;
    if (!result.passed) {
      failed_ += fmt::format("{}{}", failed_.empty() ? "" : "; ", result.name);
    }
    report_["checks"].push_back({{"name", result.name}, {"passed", result.passed}, {"found", result.found}});
    if (!options_.json) {
      fmt::print("{:7} {}: {}\n", result.passed ? "ok" : "FAILED", result.name, result.found);
      std::fflush(stdout);
    }
  }

  /// Whether all passed.
  bool finish() {
    stop();
    end(failed_.empty() ? fmt::format("check: all {} passed in {:.1f} s", count_, seconds_since(start_))
                        : fmt::format("check: failed: {}; {}", failed_, kWhatToDo));
    return failed_.empty();
  }

 private:
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      is_done_ = true;
    }
    done_.notify_all();
    if (limit_.joinable()) {
      limit_.join();
    }
  }

  void end(const std::string& verdict) {
    report_["passed"] = failed_.empty() && is_done_;
    report_["verdict"] = verdict;
    fmt::print("{}\n", options_.json ? to_line(report_) : verdict);
  }

  const CheckOptions options_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::mutex mutex_;  // for all below
  std::condition_variable done_;
  bool is_done_ = false;
  Json report_ = {{"version", kVersion}, {"checks", Json::array()}};
  std::string at_ = "the versions", failed_;
  int count_ = 0;
  std::thread limit_;  // last: it uses the others
};

void check(const CheckOptions& options) {
  CheckReport report(options);
  MachineCheckOptions machine;
  if (cuda_device_count() > 0) {
    machine.gpus = parse_devices("cuda");
  }
  report.begin(versions(machine.gpus));
  machine.begins = [&](const std::string& name) { report.begins(name); };
  machine.ends = [&](const CheckResult& result) { report.ends(result); };
  check_machine(machine);
  if (!report.finish()) {
    throw CLI::RuntimeError(kMachineFailed);
  }
}

}  // namespace

void add_check(CLI::App& app) {
  auto options = std::make_shared<CheckOptions>();
  CheckOptions& o = *options;
  CLI::App& command = *app.add_subcommand(
      "check", "Check within a minute that this machine trains correctly: a report to paste");
  command.add_option("--seconds", o.seconds, "It ends after this long, and says what it was at")
      ->check(in_range(0.001, 1e6));
  command.add_flag("--json", o.json, "Print one JSON object");
  command.callback([options] { check(*options); });
}

}  // namespace millrace::app
