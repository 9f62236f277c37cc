#include "app/output/profile.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cmath>
#include <fmt/core.h>
#include <limits>
#include <map>
#include <thread>

#include "app/output/measure.h"
#include "tensor/gpu/idle_clock.h"
#include "tensor/kernels/launch.h"
#include "tensor/ops.h"

namespace millrace::app {

namespace {

using Clock = std::chrono::steady_clock;

/// Those of a convolution or matrix product: each element of one tensor is a product of a row of another.
double floating_operations(const KernelLaunch& launch) {
  const auto count = [&](std::size_t many, std::size_t rows, std::int64_t in_a_row) {
    return 2 * static_cast<double>(launch.tensors[many]->numel()) *
           static_cast<double>(in_a_row == 0 ? launch.tensors[rows]->numel() / launch.tensors[rows]->size(0)
                                             : in_a_row);
  };
  if (launch.kernel == "conv2d_forward") {  // x, weight, bias, out
    return count(3, 1, 0);
  }
  if (launch.kernel == "conv2d_backward_data") {  // grad, weight, grad_x
    return count(0, 1, 0);
  }
  if (launch.kernel == "conv2d_backward_weight") {  // x, grad, grad_weight, grad_bias
    return count(1, 2, 0);
  }
  constexpr double kPooled = 4;                        // windows of 2x2
  if (launch.kernel == "conv2d_max_pool2d_forward") {  // x, weight, bias, out, index
    return kPooled * count(3, 1, 0);
  }
  if (launch.kernel == "conv2d_max_pool2d_backward_data") {  // grad, index, weight, grad_x
    return kPooled * count(0, 2, 0);
  }
  if (launch.kernel == "conv2d_max_pool2d_backward_weight") {  // x, grad, index, grad_weight, grad_bias
    return kPooled * count(1, 3, 0);
  }
  if (launch.kernel == "matmul") {  // a, b, bias, out
    return count(3, 0, launch.tensors[0]->size(-1));
  }
  return 0;
}

std::string shapes_of(const KernelLaunch& launch) {
  std::string text;
  const Tensor* first = nullptr;
  for (const Tensor* tensor : launch.tensors) {
    if (!tensor->defined() || (first != nullptr && tensor->shape() == first->shape())) {
      continue;
    }
    text += (first == nullptr ? "" : " ") + tensor->shape().to_string();
    if (first != nullptr) {
      break;
    }
    first = tensor;
  }
  return text;
}

/// What a core does at most, in a product of matrices that stay in its cache, or a GPU, in one that fills it.
double measure_peak(DType dtype, Device device) {
  constexpr double kFillsAGpu = 5e-4;  // seconds; on a core the first size takes longer
  double best = 0, fastest = 0;
  for (std::int64_t side = 768; fastest < kFillsAGpu; side *= 2) {
    const Tensor a = ones({side, side}).to(device).to(dtype);
    fastest = std::numeric_limits<double>::infinity();
    for (const auto start = Clock::now(); seconds_since(start) < 0.3;) {
      const auto begin = Clock::now();
      matmul(a, a);
      current_stream(device).synchronize();
      fastest = std::min(fastest, seconds_since(begin));
    }
    best = std::max(best, 2 * std::pow(static_cast<double>(side), 3) / fastest);
  }
  return best;
}

Device device_of(const KernelLaunch& launch) {
  for (const Tensor* tensor : launch.tensors) {
    if (tensor->defined()) {
      return tensor->device();
    }
  }
  return kCpu;
}

}  // namespace

struct Profile::Thread {
  struct Times {
    std::int64_t calls = 0;
    double seconds = 0;
    double operations = 0;
    IdleClock clock = {};  // of a GPU's stream, which it runs from before the kernel to behind it
  };
  std::map<std::pair<std::string, std::string>, Times> times;
  std::vector<std::function<void()>> convolutions;
  double own_seconds = 0;  // what timing itself took; a GPU does not wait for it
  bool keeps = true;
  bool inside = false;  // of a kernel: what it launches counts with it
  LaunchHook hook = [this](const KernelLaunch& launch) { time(launch); };

  void time(const KernelLaunch& launch) {
    if (inside) {
      return launch.run();
    }
    const auto entered = Clock::now();
    if (keeps && launch.kernel.starts_with("conv2d")) {
      convolutions.push_back(launch.keep(hold_itself));
    }
    std::string name(launch.kernel);
    if (!launch.operation.empty()) {
      name.append(" ").append(launch.operation);
    }
    Times& sum = times[{std::move(name), shapes_of(launch)}];
    ++sum.calls;
    sum.operations += floating_operations(launch);
    inside = true;
    if (const Device device = device_of(launch); device.is_cuda()) {
      sum.clock.pause(current_stream(device));
      launch.run();
      sum.clock.resume(current_stream(device));
    } else {
      const auto start = Clock::now();
      launch.run();
      const double seconds = seconds_since(start);
      sum.seconds += seconds;
      own_seconds += seconds_since(entered) - seconds;
    }
    inside = false;
  }
};

Profile::Profile(DType dtype, Device device) : device_(device), peak_(measure_peak(dtype, device)) {}
Profile::~Profile() { launch_hook = nullptr; }

void Profile::watch() {
  if (launch_hook != nullptr) {
    return;
  }
  const std::lock_guard lock(mutex_);
  launch_hook = &threads_.emplace_back(std::make_unique<Thread>())->hook;
}

void Profile::start() {
  for (const auto& thread : threads_) {
    thread->times.clear();
    thread->own_seconds = 0;
    thread->keeps = false;
  }
}

double Profile::convolutions_alone() const {
  constexpr int kRepeats = 5;
  std::vector<double> best(threads_.size());
  std::barrier together(static_cast<std::ptrdiff_t>(threads_.size()));
  std::vector<std::jthread> runners;
  for (std::size_t i = 0; i < threads_.size(); ++i) {
    runners.emplace_back([&, i] {
      for (int repeat = -1; repeat < kRepeats; ++repeat) {  // the first one makes the primitives
        together.arrive_and_wait();
        const auto start = Clock::now();
        for (const auto& convolution : threads_[i]->convolutions) {
          convolution();
        }
        current_stream(device_).synchronize();
        const double seconds = seconds_since(start);
        best[i] = repeat <= 0 ? seconds : std::min(best[i], seconds);
      }
    });
  }
  runners.clear();
  return *std::max_element(best.begin(), best.end());
}

Profile::Report Profile::report(std::int64_t steps, double seconds, std::int64_t images) const {
  Report report;
  report.device = device_;
  report.peak_gigaflops = 1e-9 * peak_;
  const double threads = static_cast<double>(threads_.size()), times = static_cast<double>(steps);
  std::map<std::pair<std::string, std::string>, Thread::Times> sums;
  double own = 0, kernels = 0;
  for (const auto& thread : threads_) {
    own += thread->own_seconds / threads;
    for (auto& [key, add] : thread->times) {
      Thread::Times& sum = sums[key];
      const double on_device = add.seconds + add.clock.seconds();
      sum.calls += add.calls;
      sum.seconds += on_device;
      sum.operations += add.operations;
      kernels += on_device / threads;
    }
  }
  const double all = seconds - own;
  for (const auto& [key, sum] : sums) {
    report.rows.push_back({.operation = key.first,
                           .shapes = key.second,
                           .calls = static_cast<double>(sum.calls) / times,
                           .milliseconds = 1e3 * sum.seconds / threads / times,
                           .share = sum.seconds / threads / all,
                           .gigaflops = 1e-9 * sum.operations / sum.seconds});
    report.launches += static_cast<double>(sum.calls) / threads / times;
  }
  std::ranges::stable_sort(report.rows, std::ranges::greater{}, &Report::Row::milliseconds);
  report.step_milliseconds = 1e3 * all / times;
  report.between_milliseconds = 1e3 * (all - kernels) / times;
  report.images_per_second = static_cast<double>(images) * times / all;
  const double limit = convolutions_alone();
  report.limit_images_per_second = limit > 0 ? static_cast<double>(images) / limit : 0;
  return report;
}

std::string Profile::Report::to_string() const {
  std::string text = fmt::format("{:35} {:36} {:>6} {:>10} {:>6} {:>9} {:>8}\n", "kernel", "shapes", "calls",
                                 "ms", "%", "GFLOP/s", "of peak");
  for (const Row& row : rows) {
    text += fmt::format("{:35} {:36} {:>6.6g} {:>10.3f} {:>6.1f}", row.operation, row.shapes, row.calls,
                        row.milliseconds, 100 * row.share);
    if (row.gigaflops > 0) {
      text += fmt::format(" {:>9.1f} {:>6.0f} %", row.gigaflops, 100 * row.gigaflops / peak_gigaflops);
    }
    text += '\n';
  }
  text +=
      fmt::format("{:35} {:36} {:>6} {:>10.3f} {:>6.1f}; {:.2f} us for each of {:.0f}\n", "between kernels",
                  "", "", between_milliseconds, 100 * between_milliseconds / step_milliseconds,
                  1e3 * between_milliseconds / launches, launches);
  text += fmt::format("{:35} {:36} {:>6} {:>10.3f} {:>6.1f}; peak of a {}: {:.1f} GFLOP/s\n", "a step", "",
                      "", step_milliseconds, 100.0, device.is_cuda() ? "GPU" : "core", peak_gigaflops);
  if (limit_images_per_second > 0) {
    text +=
        fmt::format("convolution-only limit: {} images/s, this step reaches {:.1f} %\n",
                    with_commas(limit_images_per_second), 100 * images_per_second / limit_images_per_second);
  }
  return text;
}

Json Profile::Report::to_json() const {
  Json kernels = Json::array();
  for (const Row& row : rows) {
    kernels.push_back({{"kernel", row.operation},
                       {"shapes", row.shapes},
                       {"calls", row.calls},
                       {"ms", row.milliseconds},
                       {"share", row.share},
                       {"gflops", row.gigaflops},
                       {"of_peak", row.gigaflops / peak_gigaflops}});
  }
  return {{"kernels", kernels},
          {"between_ms", between_milliseconds},
          {"launches", launches},
          {"step_ms", step_milliseconds},
          {"peak_gflops", peak_gigaflops},
          {"limit_images_per_second", limit_images_per_second},
          {"of_limit", limit_images_per_second > 0 ? images_per_second / limit_images_per_second : 0}};
}

}  // namespace millrace::app
