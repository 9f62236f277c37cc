#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdlib>
#include <fmt/format.h>
#include <limits>
#include <mutex>
#include <optional>
#include <vector>

#include "base/tell.h"
#include "tensor/cuda/conv/conv2d_bias.h"
#include "tensor/cuda/conv/plan.h"
#include "tensor/cuda/conv/weights.h"
#include "tensor/cuda/runtime/runtime.h"
#include "tensor/cuda/shape_cache.h"
#include "tensor/kernels/conv.h"
#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/reduce.h"

namespace millrace::cuda {
namespace {

/// A point in a stream's work that knows when it was.
class Mark {
 public:
  Mark() { check(cudaEventCreate(&event_), "conv2d: timing"); }
  ~Mark() { cudaEventDestroy(event_); }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;

  void set(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "conv2d: timing"); }
  float milliseconds_since(const Mark& start) const {
    float passed = 0;
    check(cudaEventSynchronize(event_), "conv2d: timing");
    check(cudaEventElapsedTime(&passed, start.event_, event_), "conv2d: timing");
    return passed;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Memory of its own, whose contents are some number of common size.
Tensor stand_in(const Shape& shape, DType dtype, Device device) {
  Tensor made = empty(shape, {.dtype = dtype, .device = device});
  check(cudaMemsetAsync(made.raw(), 0x3c, static_cast<std::size_t>(made.numel()) * size_of(dtype),
                        stream_of(made)),
        "conv2d: timing");
  return made;
}

Tensor workspace_of(const ConvolutionPlan& plan, Device device) {
  return empty({plan.workspace_bytes()}, {.dtype = DType::u8, .device = device});
}

/// The fastest candidate, each timed over a few runs, twice: the device's clock rises only with work. It
/// happens on a stream and in memory of its own: whoever waits here waits for nothing that other threads have
/// yet to enqueue. Without memory for it, the first one. @throws cudnn::Failure when none runs.
/// MILLRACE_ENGINE_TIMES=1 prints all of their times (-1 us: it did not run), for scripts/gpu-check.
std::size_t fastest(const Convolution& c, const std::vector<ConvolutionPlan>& candidates, Device device) {
  constexpr int kRounds = 2, kRuns = 4;
  constexpr float kNotRun = std::numeric_limits<float>::max();
  const StreamGuard guard(Stream::make(device));
  const Tensor x = stand_in(c.x, c.dtype, device);
  const Tensor weight = stand_in(c.weight, c.dtype, device);
  const Tensor out = stand_in(c.out, c.dtype, device);
  const cudaStream_t stream = stream_of(out);
  const cudnnHandle_t handle = cudnn::handle(device.index);
  cudnn::check(cudnnSetStream(handle, stream));
  std::vector<float> times(candidates.size(), kNotRun);
  std::optional<cudnn::Failure> failure;
  for (int round = 0; round < kRounds; ++round) {
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      try {
        const Tensor workspace = workspace_of(candidates[i], device);
        const auto run = [&] {
          candidates[i].run(handle, x.raw(), weight.raw(), out.raw(), workspace.raw());
        };
        Mark start, end;
        run();  // loads the kernel
        start.set(stream);
        for (int k = 0; k < kRuns; ++k) {
          run();
        }
        end.set(stream);
        times[i] = std::min(times[i], end.milliseconds_since(start));
      } catch (const cudnn::Failure& refused) {  // it was promised to run, and does not
        times[i] = std::numeric_limits<float>::infinity();
        failure = refused;
      } catch (const OutOfMemory&) {  // none for its workspace
      }
    }
  }
  const auto best = std::ranges::min_element(times);
  if (std::getenv("MILLRACE_ENGINE_TIMES") != nullptr) {
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const double microseconds = times[i] < kNotRun ? 1e3 * static_cast<double>(times[i]) / kRuns : -1;
      tell(fmt::format("engine time: {}; {}; {} bytes; {:.3f} us{}", c.to_string(),
                       candidates[i].choice().to_string(), candidates[i].workspace_bytes(), microseconds,
                       &times[i] == &*best ? "; kept" : ""));
    }
  }
  if (std::isinf(*best)) {
    throw cudnn::Failure(*failure);
  }
  return static_cast<std::size_t>(best - times.begin());
}

std::string device_name(int device) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "conv2d: name of the device");
  return fmt::format("{} sm {}{}", properties.name, properties.major, properties.minor);
}

/// What was chosen before, by whatever process; else what is fastest now, which is then kept.
ConvolutionPlan make_plan(const Convolution& c, Device device) {
  const ConvolutionGraph graph(c, cudnn::device_properties(cudnn::handle(device.index)));
  const std::string name = device_name(device.index);
  const std::string key = fmt::format("{} on {} by cuDNN {}", c.to_string(), name, cudnnGetVersion());
  const auto known = [&]() -> std::optional<ConvolutionPlan> {
    const auto choice = engine_choices().find(key);
    return choice ? graph.plan_of(*choice) : std::nullopt;
  };
  if (auto plan = known()) {
    return std::move(*plan);
  }
  // One thread at a time: replicas must not choose differently, nor disturb each other's timing.
  static std::mutex choosing;
  const std::lock_guard lock(choosing);
  if (auto plan = known()) {
    return std::move(*plan);
  }
  std::vector<ConvolutionPlan> candidates = graph.candidates(10);
  if (candidates.empty()) {
    throw MachineError("{}: cuDNN {} has no engine for it on {}; try another type{}", c.to_string(),
                       cudnnGetVersion(), name,
                       c.arithmetic.deterministic ? ", or without `deterministic`" : "");
  }
  std::size_t best = 0;
  if (candidates.size() > 1) {
    try {
      best = fastest(c, candidates, device);
    } catch (const OutOfMemory&) {  // none for a second copy: heuristics put the best one first
    }
  }
  engine_choices().add(key, candidates[best].choice());
  return std::move(candidates[best]);
}

ShapeKey key_of(const Convolution& c, int device) {
  const Conv2dOptions& p = c.params;
  return {device,
          static_cast<std::int64_t>(c.direction),
          static_cast<std::int64_t>(c.dtype),
          c.arithmetic.tf32,
          c.arithmetic.deterministic,
          c.alignment,
          c.x[0],
          c.x[1],
          c.x[2],
          c.x[3],
          c.weight[0],
          c.weight[2],
          c.weight[3],
          c.out[2],
          c.out[3],
          p.stride.height,
          p.stride.width,
          p.padding.height,
          p.padding.width,
          p.dilation.height,
          p.dilation.width,
          p.groups};
}

const ConvolutionPlan& plan_for(const Convolution& c, Device device) {
  thread_local ShapeCache<ConvolutionPlan> plans;
  thread_local std::uint64_t generation = 0;
  if (const std::uint64_t now = engine_choices().generation(); now != generation) {
    plans.clear();
    generation = now;
  }
  return plans.find(key_of(c, device.index), [&] { return make_plan(c, device); });
}

std::int64_t common_alignment(std::initializer_list<const Tensor*> tensors) {
  std::uintptr_t bits = 16;
  for (const Tensor* tensor : tensors) {
    bits |= reinterpret_cast<std::uintptr_t>(tensor->raw());
  }
  return static_cast<std::int64_t>(bits & (~bits + 1));
}

/// Computes what `direction` says from the two others. The weights are in the activations' type, O, H, W, I.
void run(Direction direction, const Tensor& x, const Tensor& weight, const Tensor& out,
         const Conv2dOptions& params) {
  assert(x.is_contiguous(MemoryFormat::channels_last) && out.is_contiguous(MemoryFormat::channels_last));
  GpuArithmetic arithmetic = gpu_arithmetic();
  arithmetic.tf32 = arithmetic.tf32 && x.dtype() == DType::f32;
  const Convolution c{.direction = direction,
                      .dtype = x.dtype(),
                      .x = x.shape(),
                      .weight = weight.shape(),
                      .out = out.shape(),
                      .params = params,
                      .alignment = common_alignment({&x, &weight, &out}),
                      .arithmetic = arithmetic};
  try {
    const cudaStream_t stream = stream_of(out);
    const ConvolutionPlan& plan = plan_for(c, out.device());
    const Tensor workspace = workspace_of(plan, out.device());
    const cudnnHandle_t handle = cudnn::handle(out.device().index);
    cudnn::check(cudnnSetStream(handle, stream));
    plan.run(handle, x.raw(), weight.raw(), out.raw(), workspace.raw());
  } catch (const cudnn::Failure& failure) {
    throw MachineError("{} on {}: {}", c.to_string(), out.device().to_string(), failure.what());
  }
}

}  // namespace

void conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& params,
                    Tensor& out) {
  if (out.numel() == 0) {
    return;
  }
  run(Direction::forward, x, weights_for_engines(weight, x.dtype()), out, params);
  if (bias.defined()) {
    add_bias(bias, out);
  }
}

void conv2d_backward_data(const Tensor& grad, const Tensor& weight, const Conv2dOptions& params,
                          Tensor& grad_x) {
  if (grad_x.numel() != 0) {
    run(Direction::backward_data, grad_x, weights_for_engines(weight, grad.dtype()), grad, params);
  }
}

void conv2d_backward_weight(const Tensor& x, const Tensor& grad, const Conv2dOptions& params,
                            Tensor& grad_weight, Tensor& grad_bias) {
  if (grad.numel() == 0) {
    cuda::fill(grad_weight, 0);
  } else {
    const Tensor computed = empty(grad_weight.shape(), {x.dtype(), x.device(), MemoryFormat::channels_last});
    run(Direction::backward_weight, x, computed, grad, params);
    cuda::copy(computed, grad_weight);
  }
  if (grad_bias.defined()) {
    Tensor row = grad_bias.view({1, grad_bias.numel(), 1, 1});
    cuda::reduce(ReduceOp::sum, grad, row);
  }
}

}  // namespace millrace::cuda
