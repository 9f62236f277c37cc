#include "pipeline/training/machine_check.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fmt/format.h>
#include <limits>

#include "base/cores.h"
#include "base/team.h"
#include "distributed/group/group.h"
#include "pipeline/training/step_check.h"
#include "tensor/device_memory.h"

namespace millrace {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

StepCheck step_check(const std::string& model) {
  return {.make_module = [model] { return nn::make_model(model); }};
}

/// 1, 2 and the most that there are, at most 8.
std::vector<int> counts(int most) {
  std::vector<int> all{1, 2, static_cast<int>(std::bit_floor(static_cast<unsigned>(std::clamp(most, 2, 8))))};
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

std::vector<DType> types_of(Device device) {
  if (device.is_cuda()) {
    return {DType::f32, DType::bf16, DType::f16};
  }
  return cpu::has_bf16() ? std::vector{DType::f32, DType::bf16} : std::vector{DType::f32};
}

/// Of the devices, the one that is farthest off is told.
CheckResult check_steps(const std::string& model, const std::vector<Device>& devices, DType dtype) {
  const bool is_reference = devices[0].is_cpu() && dtype == DType::f32;
  StepDifference farthest;
  std::string where;
  for (const Device device : devices) {
    const StepDifference one = is_reference ? compare_with_slope(step_check(model), device)
                                            : compare_with_cpu(step_check(model), device, dtype);
    if (where.empty() || one.part / one.bound > farthest.part / farthest.bound) {
      farthest = one;
      where = device.to_string();
    }
  }
  return {.passed = farthest.within(),
          .found = fmt::format(
              "{}differs from {} by {}", devices.size() > 1 ? fmt::format("at most, on {}, ", where) : "",
              is_reference ? "the loss's own slope" : "the CPU's in f32", farthest.to_string())};
}

CheckResult check_hashes(const std::string& model, const std::vector<Device>& devices, DType dtype) {
  const std::vector<int> replicas = counts(devices.size() > 1    ? static_cast<int>(devices.size())
                                           : devices[0].is_cpu() ? available_cores()
                                                                 : 2);
  const std::vector<std::string> hashes = hashes_of_replicas(step_check(model), devices, dtype, replicas);
  const bool equal = std::ranges::count(hashes, hashes[0]) == std::ssize(hashes);
  std::string found = fmt::format("{} of {}", hashes[0].substr(0, 12), replicas[0]);
  for (std::size_t i = 1; i < hashes.size(); ++i) {
    found +=
        fmt::format(", {} of {}", hashes[i] == hashes[0] ? "the same" : hashes[i].substr(0, 12), replicas[i]);
  }
  return {.passed = equal, .found = found + (equal ? "" : ", expected the same weights on all")};
}

/// A folder that is gone with its owner.
class Scratch {
 public:
  Scratch() {
    std::string name = (fs::temp_directory_path() / "millrace-check-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) {
      throw MachineError("cannot make a folder {}: {}; set TMPDIR to one that can be written", name,
                         std::strerror(errno));
    }
    path_ = name;
  }
  ~Scratch() {
    std::error_code error;
    fs::remove_all(path_, error);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// A small training, which goes on from a checkpoint where there is one.
class SmallTraining {
 public:
  explicit SmallTraining(Device device)
      : trainer_([] { return nn::make_model("lenet5"); },
                 nn::SgdOptions{.learning_rate = 0.01, .momentum = 0.9},
                 {.replicas = 1, .shards = 2, .devices = {device}}),
        loader_(open_dataset("synthetic:64"),
                {.batch_size = 16,
                 .transforms = "random_crop:4,normalize",
                 .dtype = feed_type(device, DType::f32, "random_crop:4,normalize"),
                 .shards = 2,
                 .threads = 1}),
        run_(describe_run(trainer_, loader_)) {}
  Checkpoint checkpoint() const { return {trainer_.state(), loader_.state(), run_}; }
  void go_on(const Checkpoint& from) {
    resume(from, run_, trainer_, loader_, [](const std::string&) {});
  }
  void steps(int count) {
    loader_.epoch(0);
    Batch batch;
    while (count-- > 0 && loader_.next(batch)) {
      trainer_.step(batch, [](nn::Module& net, const Batch& b) {
        return cross_entropy(net(b.images()), b.labels(), {.reduction = Reduction::sum});
      });
    }
  }
  std::string hash() { return trainer_.weights_hash(); }

 private:
  Trainer trainer_;
  Loader loader_;
  RunDescription run_;
};

CheckResult check_checkpoint(Device device) {
  const Scratch scratch;
  SmallTraining first(device), second(device);
  first.steps(2);
  const fs::path path = save_checkpoint(scratch.path(), first.checkpoint());
  first.go_on(load_checkpoint(path));
  first.steps(2);
  second.go_on(load_checkpoint(path));
  second.steps(2);
  const bool equal = first.hash() == second.hash();
  return {.passed = equal,
          .found = equal ? "resumed with the same weights"
                         : fmt::format("got other weights ({}) than without the break ({})", second.hash(),
                                       first.hash())};
}

constexpr std::int64_t kCopied = 64 << 20;  // bytes, more than caches hold

/// The shortest of several.
template <typename Body>
double seconds_of(Body&& body) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 5; ++i) {
    const auto start = Clock::now();
    body();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

std::string speed(double bytes, double seconds) { return fmt::format("{:.1f} GB/s", bytes / seconds / 1e9); }

CheckResult measure_host_copies() {
  const Tensor from = ones({kCopied}, {.dtype = DType::u8});
  Tensor into = zeros({kCopied}, {.dtype = DType::u8});
  return {.found = speed(kCopied, seconds_of([&] { into.copy_(from); }))};
}

CheckResult measure_pinned_copies(Device device) {
  Tensor host(Storage::allocate_pinned(kCopied), 0, {kCopied}, {1}, DType::u8);
  Tensor there = zeros({kCopied}, {.dtype = DType::u8, .device = device});
  host.fill_(1);
  const auto timed = [&](const Tensor& from, Tensor& into) {
    return seconds_of([&] {
      into.copy_(from);
      current_stream(device).synchronize();
    });
  };
  const double up = timed(host, there), down = timed(there, host);
  return {.found = fmt::format("{} to it, {} from it", speed(kCopied, up), speed(kCopied, down))};
}

/// By the bytes that each GPU must at least send: 2 (n - 1) / n of the tensor.
CheckResult measure_nccl(const std::vector<Device>& gpus) {
  const int size = static_cast<int>(gpus.size());
  auto group = make_group(gpus, {.timeout = std::chrono::seconds(20), .sum_order = SumOrder::engine});
  std::vector<double> seconds(group.size());
  std::vector<std::exception_ptr> failures(group.size());
  Team team(size);
  team.run([&](int rank) {
    const auto r = static_cast<std::size_t>(rank);
    try {
      Tensor tensor = zeros({kCopied / 4}, {.device = gpus[r]});
      seconds[r] = seconds_of([&] {
        group[r]->all_reduce(tensor);
        Event done;
        done.record(current_stream(gpus[r]));
        group[r]->wait(done);
      });
    } catch (const std::exception& error) {
      group[r]->abort(error.what());
      failures[r] = std::current_exception();
    }
  });
  for (const std::exception_ptr& failure : failures) {
    if (failure) {
      std::rethrow_exception(failure);
    }
  }
  return {.found = fmt::format("{} in each GPU's link, {} GPUs",
                               speed(2.0 * kCopied * (size - 1) / size, *std::ranges::max_element(seconds)),
                               size)};
}

CheckResult measure_loader() {
  constexpr int kImages = 8192;
  Loader loader{open_dataset(fmt::format("synthetic:{}", kImages)),
                {.batch_size = 256, .transforms = "random_crop:4,horizontal_flip,normalize"}};
  const auto start = Clock::now();
  std::int64_t images = 0;
  for (const Batch& batch : loader.epoch(0)) {
    images += batch.valid();
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return {.passed = images == kImages,
          .found = fmt::format("{:.0f} images/s, {} of {}", static_cast<double>(images) / seconds, images,
                               kImages)};
}

/// Runs checks one after the other, and keeps what they found.
class Checks {
 public:
  explicit Checks(const MachineCheckOptions& options) : options_(options) {}

  template <typename Check>
  void run(const std::string& name, Check&& check) {
    if (options_.begins) {
      options_.begins(name);
    }
    CheckResult result;
    try {
      result = check();
    } catch (const std::exception& error) {
      result = {.passed = false, .found = error.what()};
    }
    result.name = name;
    if (options_.ends) {
      options_.ends(result);
    }
    results.push_back(std::move(result));
  }

  std::vector<CheckResult> results;

 private:
  const MachineCheckOptions& options_;
};

}  // namespace

std::vector<CheckResult> check_machine(const MachineCheckOptions& options) {
  const std::vector<std::string> models =
      options.models.empty() ? std::vector<std::string>{"lenet5", "resnet20", "airbench94"} : options.models;
  std::vector<std::vector<Device>> places{{kCpu}};
  if (!options.gpus.empty()) {
    places.push_back(options.gpus);
  }
  Checks checks(options);
  for (const auto& devices : places) {
    for (const DType dtype : types_of(devices[0])) {
      for (const std::string& model : models) {
        checks.run(fmt::format("{}, {} on {}, a step", model, name_of(dtype), to_string(devices)),
                   [&] { return check_steps(model, devices, dtype); });
        checks.run(fmt::format("{}, {} on {}, hashes", model, name_of(dtype), to_string(devices)),
                   [&] { return check_hashes(model, devices, dtype); });
      }
    }
    checks.run(fmt::format("checkpoint on {}", devices[0].to_string()),
               [&] { return check_checkpoint(devices[0]); });
  }
  checks.run("copies in memory", measure_host_copies);
  for (const Device gpu : options.gpus) {
    checks.run(fmt::format("copies of pinned memory, {}", gpu.to_string()),
               [&] { return measure_pinned_copies(gpu); });
  }
  if (options.gpus.size() > 1) {
    checks.run("NCCL's sum", [&] { return measure_nccl(options.gpus); });
  }
  checks.run("loader, drawn images", measure_loader);
  return std::move(checks.results);
}

}  // namespace millrace
