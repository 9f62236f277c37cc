// The network kernels that are bound by memory, on a GPU: bytes/s (what must be read and written, counted
// once), and that as a share of what copying a tensor reached in the same run. Larger than the L2 cache, as
// in training.
#include <benchmark/benchmark.h>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>

#include "tensor/kernels/index.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/norm.h"
#include "tensor/kernels/optimizer.h"
#include "tensor/kernels/pool.h"
#include "tensor/kernels/random.h"
#include "tensor/kernels/reduce.h"
#include "tensor/kernels/rows.h"
#include "tensor/ops.h"

namespace millrace {
namespace {

constexpr Device kGpu{Device::Kind::cuda, 0};
constexpr MemoryFormat kLast = MemoryFormat::channels_last;
constexpr int kLaunches = 20;  // for one wait of the host

double copy_rate = 0;

struct Work {
  std::size_t bytes;
  std::function<void()> launch;
  Tensor out;  ///< All of its elements are `expected`: a benchmark of a wrong kernel is worth nothing.
  double expected;
};

void measure(benchmark::State& state, const std::function<Work()>& make, bool is_copy) {
  const Work work = make();
  work.launch();
  const double low = min(work.out).item(), high = max(work.out).item();
  const double spare = 0.01 * std::abs(work.expected) + 1e-6;
  if (std::abs(low - work.expected) > spare || std::abs(high - work.expected) > spare) {
    state.SkipWithError(
        fmt::format("got values from {} to {}, expected {}", low, high, work.expected).c_str());
    return;
  }
  double seconds = 0;
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kLaunches; ++i) {
      work.launch();
    }
    current_stream(kGpu).synchronize();
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    state.SetIterationTime(passed.count());
    seconds += passed.count();
  }
  const double rate =
      static_cast<double>(work.bytes) * kLaunches * static_cast<double>(state.iterations()) / seconds;
  copy_rate = is_copy ? std::max(copy_rate, rate) : copy_rate;
  state.counters["bytes/s"] = rate;
  state.counters["of_copy"] = copy_rate > 0 ? rate / copy_rate : 0;
}

void add(const std::string& name, const std::function<Work()>& make, bool is_copy = false) {
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { measure(state, make, is_copy); })
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond);
}

Tensor filled(const Shape& shape, DType dtype, double value = 0.5) {
  const MemoryFormat format = shape.size() == 4 ? kLast : MemoryFormat::row_major;
  return full(shape, value, {.dtype = dtype, .device = kGpu, .format = format});
}

Work copy(const Shape& shape, DType dtype) {
  const Tensor x = filled(shape, dtype);
  Tensor out = empty_like(x);
  return {2 * x.bytes(), [=]() mutable { out.copy_(x); }, out, 0.5};
}

Work batch_norm_statistics(const Shape& shape, DType dtype) {
  const Tensor x = filled(shape, dtype);
  Tensor mean = empty({shape[1]}, {.device = kGpu}), var = empty({shape[1]}, {.device = kGpu});
  return {x.bytes(), [=]() mutable { MILLRACE_LAUNCH(kGpu, batch_norm_statistics, x, mean, var); }, mean,
          0.5};
}

Work batch_norm_apply(const Shape& shape, DType dtype) {
  const Tensor x = filled(shape, dtype), vector = filled({shape[1]}, DType::f32);
  Tensor out = empty_like(x);
  return {2 * x.bytes(),
          [=]() mutable {
            MILLRACE_LAUNCH(kGpu, batch_norm_apply, x, vector, vector, 1e-5, vector, vector, out);
          },
          out, 0.5};
}

/// Read twice: for the sums, and for the gradient.
Work batch_norm_backward(const Shape& shape, DType dtype) {
  const Tensor x = filled(shape, dtype), grad = filled(shape, dtype), vector = filled({shape[1]}, DType::f32);
  Tensor grad_x = empty_like(x), grad_weight = empty_like(vector), grad_bias = empty_like(vector);
  return {5 * x.bytes(),
          [=]() mutable {
            MILLRACE_LAUNCH(kGpu, batch_norm_backward, grad, x, vector, vector, 1e-5, vector, true, grad_x,
                            grad_weight, grad_bias);
          },
          grad_x, 0};
}

Shape halved(const Shape& shape) { return {shape[0], shape[1], shape[2] / 2, shape[3] / 2}; }

Work max_pool_forward(const Shape& shape, DType dtype) {
  const Tensor x = filled(shape, dtype);
  Tensor out = filled(halved(shape), dtype), index = filled(halved(shape), DType::u8);
  return {x.bytes() + out.bytes() + index.bytes(),
          [=]() mutable { MILLRACE_LAUNCH(kGpu, max_pool2d_forward, x, Pool2dOptions{}, out, index); }, out,
          0.5};
}

Work max_pool_backward(const Shape& shape, DType dtype) {
  const Tensor grad = filled(halved(shape), dtype), index = filled(halved(shape), DType::u8, 0);
  Tensor grad_x = filled(shape, dtype);
  return {grad_x.bytes() + grad.bytes() + index.bytes(),
          [=]() mutable { MILLRACE_LAUNCH(kGpu, max_pool2d_backward, grad, index, Pool2dOptions{}, grad_x); },
          grad_x.narrow(2, 0, 1).narrow(3, 0, 1), 0.5};
}

Work average_pool(const Shape& shape, DType dtype) {
  const Tensor x = filled(shape, dtype);
  Tensor out = filled({shape[0], shape[1], 1, 1}, dtype);
  return {x.bytes() + out.bytes(),
          [=]() mutable { MILLRACE_LAUNCH(kGpu, avg_pool2d_forward, x, Pool2dOptions{.kernel = 0}, out); },
          out, 0.5};
}

Work pad(const Shape& shape, DType dtype) {
  const Tensor x = filled(shape, dtype);
  Tensor out = filled({shape[0], shape[1], shape[2] + 8, shape[3] + 8}, dtype);
  return {x.bytes() + out.bytes(),
          [=]() mutable {
            MILLRACE_LAUNCH(kGpu, pad2d_forward, x, Pad2d{4, 4, 4, 4}, PadMode::reflect, out);
          },
          out, 0.5};
}

Work dropout(const Shape& shape, DType dtype) {
  const Tensor x = filled({shape.numel()}, dtype, 0);
  Tensor out = empty_like(x);
  return {2 * x.bytes(), [=]() mutable { MILLRACE_LAUNCH(kGpu, dropout, x, 0.5, 7, 0, out); }, out, 0};
}

Work sum_of_rows(const Shape& shape, DType dtype) {
  const Tensor x = filled({shape.numel() / shape[1], shape[1]}, dtype, 0);
  Tensor out = filled({1, shape[1]}, DType::f32);
  return {x.bytes(), [=]() mutable { MILLRACE_LAUNCH(kGpu, reduce, ReduceOp::sum, x, out); }, out, 0};
}

Work sum_of_all(const Shape& shape, DType dtype) {
  const Tensor x = filled({shape.numel()}, dtype, 0);
  Tensor out = filled({1}, DType::f32);
  return {x.bytes(), [=]() mutable { MILLRACE_LAUNCH(kGpu, reduce, ReduceOp::sum, x, out); }, out, 0};
}

Work select_images(const Shape& shape, DType dtype) {
  const Tensor x = filled(shape, dtype).permute({0, 2, 3, 1});
  Tensor out = empty_like(x);
  const Tensor order =
      arange(static_cast<double>(shape[0] - 1), -1, -1, {.dtype = DType::i64, .device = kGpu});
  return {2 * x.bytes(), [=]() mutable { MILLRACE_LAUNCH(kGpu, index_select, x, 0, order, out); }, out, 0.5};
}

Work softmax_rows(std::int64_t rows, std::int64_t columns, DType dtype) {
  const Tensor x = filled({rows, columns}, dtype);
  Tensor out = empty_like(x);
  return {2 * x.bytes(), [=]() mutable { MILLRACE_LAUNCH(kGpu, softmax, x, out); }, out,
          1.0 / static_cast<double>(columns)};
}

Work sgd(std::int64_t count) {
  Tensor weight = filled({count}, DType::f32, 0), momentum = filled({count}, DType::f32, 0);
  const Tensor grad = filled({count}, DType::f32, 0);
  const SgdStep step{
      .gradient = {.weight_decay = 5e-4f}, .learning_rate = 0.1f, .momentum = 0.9f, .nesterov = true};
  return {5 * weight.bytes(),
          [=]() mutable { MILLRACE_LAUNCH(kGpu, sgd_step, weight, grad, momentum, step); }, weight, 0};
}

void add_all() {
  using Make = Work (*)(const Shape&, DType);
  const std::pair<const char*, Make> kernels[] = {{"batch_norm_statistics", batch_norm_statistics},
                                                  {"batch_norm_apply", batch_norm_apply},
                                                  {"batch_norm_backward", batch_norm_backward},
                                                  {"max_pool_forward", max_pool_forward},
                                                  {"max_pool_backward", max_pool_backward},
                                                  {"average_pool", average_pool},
                                                  {"pad", pad},
                                                  {"dropout", dropout},
                                                  {"sum_of_rows", sum_of_rows},
                                                  {"sum_of_all", sum_of_all},
                                                  {"select_images", select_images}};
  const std::pair<const char*, Shape> images[] = {{"airbench94.g0", {1024, 64, 31, 31}},
                                                  {"airbench94.g1", {1024, 256, 15, 15}},
                                                  {"resnet18.conv1", {256, 64, 112, 112}}};
  add(
      "copy/first", [=] { return copy(images[2].second, DType::bf16); }, true);
  for (DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (const auto& [image, shape] : images) {
      add(
          fmt::format("copy/{}/{}", image, dtype), [=, shape = shape] { return copy(shape, dtype); }, true);
      for (const auto& [name, make] : kernels) {
        add(fmt::format("{}/{}/{}", name, image, dtype),
            [=, make = make, shape = shape] { return make(shape, dtype); });
      }
    }
    for (std::int64_t columns : {10, 1000, 20000}) {
      add(fmt::format("softmax/{}/{}", columns, dtype),
          [=] { return softmax_rows(100'000'000 / columns, columns, dtype); });
    }
  }
  for (std::int64_t count : {2'000'000, 100'000'000}) {
    add(fmt::format("sgd/{}", count), [=] { return sgd(count); });
  }
}

}  // namespace
}  // namespace millrace

int main(int count, char** arguments) {
  if (millrace::cuda_device_count() == 0) {
    std::fprintf(stderr, "cuda_bench: %s\n", millrace::cuda_unavailable_reason().c_str());
    return 1;
  }
  millrace::add_all();
  benchmark::Initialize(&count, arguments);
  if (benchmark::ReportUnrecognizedArguments(count, arguments)) {
    return 2;
  }
  benchmark::RunSpecifiedBenchmarks();
}
