// The network kernels on one core, at the shapes of the networks that Millrace trains: FLOP/s for
// convolutions, bytes/s (read and written, counted once) for the rest.
#include <benchmark/benchmark.h>
#include <cmath>

#include "tensor/kernels/conv.h"
#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/matmul.h"
#include "tensor/kernels/norm.h"
#include "tensor/kernels/optimizer.h"
#include "tensor/kernels/pool.h"
#include "tensor/ops.h"

namespace millrace {
namespace {

constexpr MemoryFormat kLast = MemoryFormat::channels_last;

struct Layer {
  const char* name;
  std::int64_t batch, in, size, out, kernel, padding;
};

constexpr Layer kLayers[] = {
    {"lenet5.conv1/2", 2, 3, 32, 6, 5, 0},          {"lenet5.conv2/2", 2, 6, 14, 16, 5, 0},
    {"lenet5.conv1/64", 64, 3, 32, 6, 5, 0},        {"lenet5.conv2/64", 64, 6, 14, 16, 5, 0},
    {"airbench94.whiten", 64, 3, 32, 24, 2, 0},     {"airbench94.g0.conv1", 64, 24, 31, 64, 3, 1},
    {"airbench94.g0.conv2", 64, 64, 15, 64, 3, 1},  {"airbench94.g1.conv1", 64, 64, 15, 256, 3, 1},
    {"airbench94.g1.conv2", 64, 256, 7, 256, 3, 1}, {"airbench94.g2.conv2", 64, 256, 3, 256, 3, 1},
    {"resnet9.prep", 16, 3, 32, 64, 3, 1},          {"resnet9.layer1", 16, 64, 32, 128, 3, 1},
    {"resnet9.res1", 16, 128, 16, 128, 3, 1},       {"resnet9.layer3", 16, 256, 8, 512, 3, 1},
    {"resnet9.res2", 16, 512, 4, 512, 3, 1},
};

enum class Pass { forward, data, weight };

Tensor filled(const Shape& shape, DType dtype, MemoryFormat format = kLast) {
  return full(shape, 0.5, {.dtype = dtype, .format = format});
}

/// Throws when a result is not what all inputs of one half give: a benchmark of a wrong kernel is worth
/// nothing.
void check(double got, double expected) {
  if (std::abs(got - expected) > 0.01 * std::abs(expected)) {
    throw InputError("kernels_bench: got {}, expected {}", got, expected);
  }
}

void convolution(benchmark::State& state, const Layer& l, Pass pass, DType dtype) {
  const std::int64_t size = l.size + 2 * l.padding - l.kernel + 1;
  const Conv2dOptions params{.padding = l.padding};
  Tensor x = filled({l.batch, l.in, l.size, l.size}, dtype),
         out = filled({l.batch, l.out, size, size}, dtype);
  Tensor weight = filled({l.out, l.in, l.kernel, l.kernel}, DType::f32, MemoryFormat::row_major), bias,
         grad_bias;
  Tensor grad_weight = empty_like(weight), grad_x = empty_like(x);
  const auto once = [&] {
    switch (pass) {
      case Pass::forward:
        return cpu::conv2d_forward(x, weight, bias, params, out);
      case Pass::data:
        return cpu::conv2d_backward_data(out, weight, params, grad_x);
      case Pass::weight:
        return cpu::conv2d_backward_weight(x, out, params, grad_weight, grad_bias);
    }
  };
  once();
  const std::int64_t middle = l.size / 2, centre = l.kernel / 2;
  const auto taps = static_cast<double>(l.kernel * l.kernel);
  if (pass == Pass::forward) {
    check(out.at({0, 0, size / 2, size / 2}), 0.25 * taps * static_cast<double>(l.in));
  }
  if (pass == Pass::data && l.size > 4) {
    check(grad_x.at({0, 0, middle, middle}), 0.25 * taps * static_cast<double>(l.out));
  }
  if (pass == Pass::weight) {
    check(grad_weight.at({0, 0, centre, centre}), 0.25 * static_cast<double>(l.batch * size * size));
  }
  for (auto _ : state) {
    once();
  }
  const double flop = 2.0 * taps * static_cast<double>(l.in * l.out * l.batch * size * size);
  state.counters["FLOP/s"] = benchmark::Counter(flop, benchmark::Counter::kIsIterationInvariantRate);
}

/// Runs `once`, which moves `bytes`.
template <typename F>
void stream(benchmark::State& state, std::size_t bytes, F&& once) {
  once();
  for (auto _ : state) {
    once();
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * static_cast<std::int64_t>(bytes));
}

struct Image {
  const char* name;
  Shape shape;
};

void batch_norm_forward(benchmark::State& state, const Shape& shape, DType dtype) {
  const Tensor x = filled(shape, dtype);
  Tensor out = empty_like(x), mean = empty({shape[1]}), var = empty({shape[1]});
  const Tensor weight = ones({shape[1]}), bias = zeros({shape[1]});
  stream(state, 3 * x.bytes(), [&] {
    cpu::batch_norm_statistics(x, mean, var);
    cpu::batch_norm_apply(x, mean, var, 1e-5, weight, bias, out);
  });
}

void batch_norm_backward(benchmark::State& state, const Shape& shape, DType dtype) {
  const Tensor x = filled(shape, dtype), grad = filled(shape, dtype), weight = ones({shape[1]});
  Tensor grad_x = empty_like(x), mean = zeros({shape[1]}), var = ones({shape[1]}), w = empty({shape[1]}),
         b = empty({shape[1]});
  stream(state, 5 * x.bytes(),
         [&] { cpu::batch_norm_backward(grad, x, mean, var, 1e-5, weight, true, grad_x, w, b); });
}

void max_pool_forward(benchmark::State& state, const Shape& shape, DType dtype) {
  const Tensor x = filled(shape, dtype);
  Tensor out = empty({shape[0], shape[1], shape[2] / 2, shape[3] / 2}, {.dtype = dtype, .format = kLast});
  Tensor index = empty(out.shape(), {.dtype = DType::u8, .format = kLast});
  stream(state, x.bytes() + out.bytes() + index.bytes(), [&] { cpu::max_pool2d_forward(x, {}, out, index); });
}

void max_pool_backward(benchmark::State& state, const Shape& shape, DType dtype) {
  Tensor grad_x = filled(shape, dtype);
  const Tensor grad = filled({shape[0], shape[1], shape[2] / 2, shape[3] / 2}, dtype);
  const Tensor index = zeros(grad.shape(), {.dtype = DType::u8, .format = kLast});
  stream(state, grad_x.bytes() + grad.bytes() + index.bytes(),
         [&] { cpu::max_pool2d_backward(grad, index, {}, grad_x); });
}

void activation(benchmark::State& state, UnaryOp op, bool backward, const Shape& shape, DType dtype) {
  const Tensor x = filled(shape, dtype), grad = filled(shape, dtype), y = filled(shape, dtype);
  Tensor out = empty_like(x);
  stream(state, (backward ? 3 : 2) * x.bytes(), [&] {
    if (backward) {
      cpu::unary_backward(op, grad, x, y, out);
    } else {
      cpu::unary(op, x, out);
    }
  });
}

void sgd(benchmark::State& state, std::int64_t count) {
  Tensor weight = zeros({count}), momentum = zeros({count});
  const Tensor grad = zeros({count});
  stream(state, 5 * weight.bytes(), [&] {
    cpu::sgd_step(weight, grad, momentum, {{1.0f, 5e-4f}, 0.1f, 0.9f, true});
  });
}

void product(benchmark::State& state, std::int64_t m, std::int64_t n, std::int64_t k, DType dtype) {
  const Tensor a = filled({m, k}, dtype, MemoryFormat::row_major),
               b = filled({n, k}, dtype, MemoryFormat::row_major).t();
  Tensor out = empty({m, n}, {.dtype = dtype});
  cpu::matmul(a, b, {}, out);
  check(out.at({0, 0}), 0.25 * static_cast<double>(k));
  for (auto _ : state) {
    cpu::matmul(a, b, {}, out);
  }
  state.counters["FLOP/s"] =
      benchmark::Counter(2.0 * static_cast<double>(m * n * k), benchmark::Counter::kIsIterationInvariantRate);
}

template <typename F, typename... Args>
void add(const std::string& name, DType dtype, F run, Args... args) {
  benchmark::RegisterBenchmark(fmt::format("{}/{}", name, dtype).c_str(),
                               [=](benchmark::State& state) { run(state, args..., dtype); });
}

void add_all() {
  const Image images[] = {
      {"lenet5", {2, 6, 28, 28}}, {"airbench94.g0", {64, 64, 31, 31}}, {"airbench94.g1", {64, 256, 15, 15}}};
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const Layer& layer : kLayers) {
      add(fmt::format("conv_forward/{}", layer.name), dtype, convolution, layer, Pass::forward);
      add(fmt::format("conv_data/{}", layer.name), dtype, convolution, layer, Pass::data);
      add(fmt::format("conv_weight/{}", layer.name), dtype, convolution, layer, Pass::weight);
    }
    for (const Image& image : images) {
      add(fmt::format("batch_norm_forward/{}", image.name), dtype, batch_norm_forward, image.shape);
      add(fmt::format("batch_norm_backward/{}", image.name), dtype, batch_norm_backward, image.shape);
      add(fmt::format("max_pool_forward/{}", image.name), dtype, max_pool_forward, image.shape);
      add(fmt::format("max_pool_backward/{}", image.name), dtype, max_pool_backward, image.shape);
      for (UnaryOp op : {UnaryOp::relu, UnaryOp::gelu}) {
        const char* name = op == UnaryOp::relu ? "relu" : "gelu";
        add(fmt::format("{}_forward/{}", name, image.name), dtype, activation, op, false, image.shape);
        add(fmt::format("{}_backward/{}", name, image.name), dtype, activation, op, true, image.shape);
      }
    }
    for (std::int64_t batch : {2, 64}) {
      add(fmt::format("matmul/{}x120x400", batch), dtype, product, batch, std::int64_t{120},
          std::int64_t{400});
    }
  }
  for (std::int64_t count : {62006, 2000000}) {
    benchmark::RegisterBenchmark(fmt::format("sgd/{}", count).c_str(),
                                 [=](benchmark::State& state) { sgd(state, count); });
  }
}

}  // namespace
}  // namespace millrace

// NOLINTNEXTLINE(bugprone-exception-escape): what is thrown ends the program
int main(int count, char** arguments) {
  millrace::add_all();
  benchmark::Initialize(&count, arguments);
  if (benchmark::ReportUnrecognizedArguments(count, arguments)) {
    return 2;
  }
  benchmark::RunSpecifiedBenchmarks();
}
