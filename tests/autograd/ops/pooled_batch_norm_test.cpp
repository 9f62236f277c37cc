// Batch norm with its activation and max pooling gives what the two give, one behind the other.
#include <cmath>
#include <gtest/gtest.h>
#include <limits>

#include "autograd/function.h"
#include "autograd/ops.h"
#include "tensor/ops/random.h"

namespace millrace {
namespace {

struct Case {
  Shape x;
  Activation activation;
  bool training = true;
  bool affine = true;
  bool residual = false;
  bool in_one_pass = true;
};

std::vector<Case> cases() {
  return {
      {{2, 16, 8, 6}, Activation::relu},
      {{3, 40, 4, 10}, Activation::gelu},
      {{1, 5, 2, 2}, Activation::relu},
      {{4, 1, 6, 2}, Activation::gelu},
      {{2, 24, 4, 4}, Activation::relu, false},
      {{2, 7, 4, 4}, Activation::gelu, false},
      {{3, 33, 6, 6}, Activation::relu, true, false},
      {{2, 16, 8, 6}, Activation::none, true, true, false, false},
      {{2, 16, 8, 6}, Activation::relu, true, true, true, false},
      {{2, 16, 7, 6}, Activation::relu, true, true, false, false},  // a row is left out
      {{2, 16, 8, 9}, Activation::gelu, true, true, false, false},
      {{0, 16, 4, 4}, Activation::relu, false},
      {{3, 20, 30, 34}, Activation::relu},  // several blocks of sums
  };
}

struct Data {
  Tensor x, weight, bias, residual, mean, var, grad;
};

struct NormResults {
  std::string operation;
  Tensor out, grad_x, grad_weight, grad_bias, grad_residual, mean, var;
};

NormResults run(const Case& c, const Data& data, bool together) {
  const auto leaf = [](const Tensor& value) {
    return value.defined() ? Variable(value.clone(), true) : Variable();
  };
  const Variable x = leaf(data.x), weight = leaf(data.weight), bias = leaf(data.bias),
                 residual = leaf(data.residual);
  BatchNormOptions options{.training = c.training, .activation = c.activation, .max_pool = together};
  if (!c.training) {
    options.mean = data.mean, options.var = data.var;
  }
  const BatchNormResult normalized = batch_norm(x, weight, bias, options, residual);
  const Variable out = together ? normalized.out : max_pool2d(normalized.out, {.kernel = 2});
  sum(out * Variable(data.grad)).backward();
  const auto grad_of = [](const Variable& v) { return v.defined() ? v.grad() : Tensor(); };
  return {std::string(normalized.out.creator()->name()),
          out.data(),
          x.grad(),
          grad_of(weight),
          grad_of(bias),
          grad_of(residual),
          normalized.mean,
          normalized.var};
}

/// No further apart than a share of the largest value.
void expect_close(const Tensor& got, const Tensor& expected, double tolerance, const char* what) {
  ASSERT_EQ(got.defined(), expected.defined()) << what;
  if (!expected.defined()) {
    return;
  }
  ASSERT_EQ(got.shape(), expected.shape()) << what;
  if (expected.numel() == 0) {
    return;
  }
  const Tensor all = expected.to(DType::f32);
  EXPECT_LE(max(abs(got.to(DType::f32) - all)).item(), tolerance * max(abs(all)).item()) << what;
}

TEST(PooledBatchNorm, GivesWhatTheTwoGive) {
  Generator generator(5);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Case& c : cases()) {
      SCOPED_TRACE(fmt::format("{} {}, activation {}, training {}, affine {}", dtype, c.x,
                               static_cast<int>(c.activation), c.training, c.affine));
      const std::int64_t channels = c.x[1];
      Data data;
      data.x = (randn(c.x, generator) * 2 + 1).to(dtype);
      data.grad = randn({c.x[0], channels, c.x[2] / 2, c.x[3] / 2}, generator).to(dtype);
      if (c.affine) {  // scales of both signs: the largest of x is not the largest of z
        data.weight = randn({channels}, generator);
        data.bias = randn({channels}, generator);
      }
      if (c.residual) {
        data.residual = randn(c.x, generator).to(dtype);
      }
      data.mean = randn({channels}, generator);
      data.var = abs(randn({channels}, generator)) + 0.5;
      const NormResults got = run(c, data, true), expected = run(c, data, false);
      EXPECT_EQ(got.operation, c.in_one_pass ? "batch_norm" : "max_pool2d");
      expect_close(got.out, expected.out, 0, "out");
      expect_close(got.mean, expected.mean, 0, "mean");
      expect_close(got.var, expected.var, 0, "var");
      // The one pass does not round the gradient in between.
      const double tolerance = dtype == DType::f32 ? 2e-6 : 1e-2;
      EXPECT_TRUE(data.x.numel() == 0 || max(abs(expected.grad_x.to(DType::f32))).item() > 0);
      expect_close(got.grad_x, expected.grad_x, tolerance, "grad_x");
      expect_close(got.grad_weight, expected.grad_weight, tolerance, "grad_weight");
      expect_close(got.grad_bias, expected.grad_bias, tolerance, "grad_bias");
      expect_close(got.grad_residual, expected.grad_residual, tolerance, "grad_residual");
    }
  }
}

TEST(PooledBatchNorm, GivesEachGradientAlone) {
  Generator generator(6);
  const Tensor values = randn({2, 16, 4, 4}, generator), scales = randn({16}, generator);
  for (const bool training : {true, false}) {
    const auto grad = [&](bool together) {
      const Variable given(values.clone(), true);
      BatchNormOptions options{.training = training, .activation = Activation::gelu, .max_pool = together};
      if (!training) {
        options.mean = zeros({16}), options.var = ones({16});
      }
      const Variable out = batch_norm(given, Variable(scales), Variable(scales), options).out;
      sum(together ? out : max_pool2d(out, {.kernel = 2})).backward();
      return given.grad();
    };
    expect_close(grad(true), grad(false), 2e-6, "grad_x");
  }
  const Variable x(randn({2, 16, 4, 4}, generator)), weight(ones({16}), true), bias(zeros({16}), true);
  const BatchNormOptions options{.activation = Activation::relu, .max_pool = true};
  sum(batch_norm(x, weight, bias, options).out).backward();
  const BatchNormOptions apart{.activation = Activation::relu};
  const Variable other_weight(ones({16}), true), other_bias(zeros({16}), true);
  sum(max_pool2d(batch_norm(x, other_weight, other_bias, apart).out, {.kernel = 2})).backward();
  expect_close(weight.grad(), other_weight.grad(), 2e-6, "grad_weight");
  expect_close(bias.grad(), other_bias.grad(), 2e-6, "grad_bias");
}

TEST(PooledBatchNorm, WhatIsNoNumberWins) {
  const Tensor values = ones({1, 3, 4, 4}, {.format = MemoryFormat::channels_last});
  values.data<float>()[(1 * 4 + 2) * 3 + 1] = std::numeric_limits<float>::quiet_NaN();
  BatchNormOptions options{.training = false, .activation = Activation::relu, .max_pool = true};
  options.mean = zeros({3}), options.var = ones({3});
  const Tensor out = batch_norm(Variable(values), {}, {}, options).out.data()[0];
  EXPECT_TRUE(std::isnan(out[1].select(0, 0).select(0, 1).item()));
  EXPECT_GT(out[1].select(0, 0).select(0, 0).item(), 0.9);
  EXPECT_GT(out[0].select(0, 0).select(0, 1).item(), 0.9);
}

}  // namespace
}  // namespace millrace
