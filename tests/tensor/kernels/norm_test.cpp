#include "tensor/kernels/norm.h"

#include <gtest/gtest.h>

#include "support.h"

namespace millrace {
namespace {

struct NormCase {
  Shape shape;
  double offset = 0;  // a large mean beside a small spread is what cancels
};

struct ExpectedNorm {
  std::vector<double> mean, var, out, grad_x, grad_weight, grad_bias;
};

/// Everything in double; x, grad and the vectors in row-major order.
ExpectedNorm naive(const NormCase& c, const std::vector<double>& x, const std::vector<double>& grad,
                   const std::vector<double>& weight, const std::vector<double>& bias, double eps,
                   bool training, ExpectedNorm statistics) {
  const auto channels = static_cast<std::size_t>(c.shape[1]);
  const auto plane = static_cast<std::size_t>(c.shape.numel() / (c.shape[0] * c.shape[1]));
  const auto count = static_cast<double>(x.size() / channels);
  ExpectedNorm e = std::move(statistics);
  const auto channel = [&](std::size_t i) { return i / plane % channels; };
  if (training) {
    e.mean.assign(channels, 0);
    e.var.assign(channels, 0);
    for (std::size_t i = 0; i < x.size(); ++i) {
      e.mean[channel(i)] += x[i] / count;
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
      e.var[channel(i)] += std::pow(x[i] - e.mean[channel(i)], 2) / count;
    }
  }
  e.grad_weight.assign(channels, 0);
  e.grad_bias.assign(channels, 0);
  const auto normal = [&](std::size_t i) {
    return (x[i] - e.mean[channel(i)]) / std::sqrt(e.var[channel(i)] + eps);
  };
  for (std::size_t i = 0; i < x.size(); ++i) {
    e.out.push_back(normal(i) * weight[channel(i)] + bias[channel(i)]);
    e.grad_weight[channel(i)] += grad[i] * normal(i);
    e.grad_bias[channel(i)] += grad[i];
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t k = channel(i);
    const double through = training ? (e.grad_bias[k] + normal(i) * e.grad_weight[k]) / count : 0;
    e.grad_x.push_back(weight[k] / std::sqrt(e.var[k] + eps) * (grad[i] - through));
  }
  return e;
}

void check(const NormCase& c, DType dtype, bool training, bool affine, std::uint64_t seed) {
  const TensorOptions image{
      .dtype = dtype, .format = c.shape.size() == 4 ? MemoryFormat::channels_last : MemoryFormat::row_major};
  const double eps = 1e-5;
  Draw draw(seed);
  std::vector<double> numbers(static_cast<std::size_t>(c.shape.numel()));
  for (double& number : numbers) {
    number = c.offset + draw.next();
  }
  const Tensor x = Draw::filled(numbers, c.shape, image), grad = draw.tensor(c.shape, image);
  const Shape vector{c.shape[1]};
  const Tensor weight = affine ? draw.tensor(vector, {}) : Tensor(),
               bias = affine ? draw.tensor(vector, {}) : Tensor();
  Tensor mean = draw.tensor(vector, {}), var = ones(vector);
  const ExpectedNorm given{.mean = values(mean), .var = values(var)};
  if (training) {
    cpu::batch_norm_statistics(x, mean, var);
  }
  const ExpectedNorm e =
      naive(c, values(x), values(grad), affine ? values(weight) : std::vector<double>(mean.numel(), 1.0),
            affine ? values(bias) : std::vector<double>(mean.numel()), eps, training, given);
  Tensor out = garbage(c.shape, image), grad_x = garbage(c.shape, image);
  Tensor grad_weight = affine ? garbage(vector, {}) : Tensor(),
         grad_bias = affine ? garbage(vector, {}) : Tensor();
  cpu::batch_norm_apply(x, mean, var, eps, weight, bias, out);
  cpu::batch_norm_backward(grad, x, mean, var, eps, weight, training, grad_x, grad_weight, grad_bias);
  expect_close(mean, e.mean, DType::f32, "mean");
  expect_close(var, e.var, DType::f32, "var");
  expect_close(out, e.out, dtype, "out");
  expect_close(grad_x, e.grad_x, dtype, "grad_x");
  if (affine) {
    expect_close(grad_weight, e.grad_weight, DType::f32, "grad_weight");
    expect_close(grad_bias, e.grad_bias, DType::f32, "grad_bias");
  }
}

TEST(NetworkKernelsNorm, MatchesNaiveLoops) {
  const std::vector<NormCase> cases = {{{4, 64, 8, 8}}, {{3, 7, 5, 6}},  {{2, 83, 3, 3}},
                                       {{9, 5}},        {{5, 16, 1, 1}}, {{2, 24, 33, 31}, 10},
                                       {{130, 100}},    {{1, 3, 3, 2}}};
  std::uint64_t seed = 60;
  for (const NormCase& c : cases) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      for (bool training : {true, false}) {
        for (bool affine : {true, false}) {
          SCOPED_TRACE(
              fmt::format("{} {} training {} affine {}, seed {}", c.shape, dtype, training, affine, seed));
          check(c, dtype, training, affine, seed++);
        }
      }
    }
  }
}

TEST(NetworkKernelsNorm, VarianceSurvivesALargeMean) {
  Draw draw(5);
  std::vector<double> numbers(4 * 20000);
  for (double& number : numbers) {
    number = 1000 + draw.next();
  }
  const Tensor x = Draw::filled(numbers, {20000, 4}, {});
  std::vector<double> mean(4), var(4);
  const auto xs = values(x);
  for (std::size_t i = 0; i < xs.size(); ++i) {
    mean[i % 4] += xs[i] / 20000;
  }
  for (std::size_t i = 0; i < xs.size(); ++i) {
    var[i % 4] += std::pow(xs[i] - mean[i % 4], 2) / 20000;
  }
  Tensor got_mean = garbage({4}, {}), got_var = garbage({4}, {});
  cpu::batch_norm_statistics(x, got_mean, got_var);
  expect_close(got_mean, mean, DType::f32, "mean");
  expect_close(got_var, var, DType::f32, "var");
}

TEST(NetworkKernelsNorm, NoSamples) {
  const Tensor x = empty({0, 5, 3, 3}, {.format = MemoryFormat::channels_last});
  Tensor mean = garbage({5}, {}), var = garbage({5}, {}), weight = garbage({5}, {}), bias = garbage({5}, {});
  Tensor out = empty_like(x), grad_x = empty_like(x);
  cpu::batch_norm_statistics(x, mean, var);
  cpu::batch_norm_apply(x, mean, var, 1e-5, {}, {}, out);
  cpu::batch_norm_backward(x, x, mean, var, 1e-5, {}, true, grad_x, weight, bias);
  for (const Tensor& vector : {mean, var, weight, bias}) {
    EXPECT_EQ(values(vector), std::vector<double>(5));
  }
}

}  // namespace
}  // namespace millrace
