#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <span>
#include <vector>

#include "tensor/cpu/channels.h"
#include "tensor/cpu/functions.h"
#include "tensor/kernels/operations.h"
#include "tensor/tensor.h"

/// What batch norm with and without a pooling behind it share.
namespace millrace::cpu::normalizing {

using namespace channels;

/// f of each register's part of z.
template <typename F>
Vec by_register(Vec z, F f) {
  auto parts = std::bit_cast<std::array<Floats, kLanes / kWidth>>(z);
  for (Floats& part : parts) {
    part = f(part);
  }
  return std::bit_cast<Vec>(parts);
}

/// What follows the normalization: its value, and the gradient through it, at z.
struct Identity {
  static Vec value(Vec z) { return z; }
};
struct Relu {
  static Vec value(Vec z) { return z < 0.0f ? Vec{} : z; }  // not a number stays so
  static Vec gradient(Vec z, Vec grad) { return z > 0.0f ? grad : Vec{}; }
};
struct Gelu {
  static Vec value(Vec z) {
    return by_register(z, [](Floats part) { return part * normal(part).distribution; });
  }
  static Vec gradient(Vec z, Vec grad) {
    return grad * by_register(z, [](Floats part) {
             const Normal at = normal(part);
             return at.distribution + part * at.density;
           });
  }
};

/// Calls f<Relu> or f<Gelu>.
template <typename F>
void visit_activation(UnaryOp activation, F&& f) {
  assert(activation == UnaryOp::relu || activation == UnaryOp::gelu);
  activation == UnaryOp::relu ? f.template operator()<Relu>() : f.template operator()<Gelu>();
}

/// What makes z of x, each a vector of channels: z = (x - mean) * scale + shift.
struct Affine {
  const float* mean;
  std::vector<float> scale, shift;
};

inline Affine affine_of(const Tensor& mean, const Tensor& var, double eps, const Tensor& weight,
                        const Tensor& bias) {
  const auto size = static_cast<std::size_t>(mean.numel());
  Affine affine{mean.data<float>(), std::vector<float>(size), std::vector<float>(size)};
  for (std::size_t c = 0; c < size; ++c) {
    affine.scale[c] = static_cast<float>(1.0 / std::sqrt(var.data<float>()[c] + eps)) *
                      (weight.defined() ? weight.data<float>()[c] : 1.0f);
    affine.shift[c] = bias.defined() ? bias.data<float>()[c] : 0.0f;
  }
  return affine;
}

/// What the kernels for the gradient are given.
struct BackwardArguments {
  const Tensor &grad, &x, &mean, &var;
  double eps;
  const Tensor& weight;
  bool training;
  Tensor &grad_x, &grad_weight, &grad_bias;
};

/// grad_x = grad_z * a + (x - mean) * b + c, each a vector of channels.
struct Coefficients {
  std::vector<float> a, b, c;
};

/// From each channel's sum of the gradient of z, and of that times (x - mean), over `rows` pixels. Writes the
/// gradients of weight and bias too.
inline Coefficients finish_sums(const BackwardArguments& arguments, std::int64_t rows,
                                std::span<const double> sums, std::span<const double> products) {
  const std::size_t size = sums.size();
  Coefficients to_x{std::vector<float>(size), std::vector<float>(size), std::vector<float>(size)};
  for (std::size_t i = 0; i < size; ++i) {
    const double inverse = 1.0 / std::sqrt(arguments.var.data<float>()[i] + arguments.eps);
    const double scale = inverse * (arguments.weight.defined() ? arguments.weight.data<float>()[i] : 1.0f);
    const double per_row =
        arguments.training ? scale / static_cast<double>(std::max<std::int64_t>(rows, 1)) : 0.0;
    to_x.a[i] = static_cast<float>(scale);
    to_x.b[i] = static_cast<float>(-per_row * products[i] * inverse * inverse);
    to_x.c[i] = static_cast<float>(-per_row * sums[i]);
    if (arguments.grad_weight.defined()) {
      arguments.grad_weight.data<float>()[i] = static_cast<float>(products[i] * inverse);
    }
    if (arguments.grad_bias.defined()) {
      arguments.grad_bias.data<float>()[i] = static_cast<float>(sums[i]);
    }
  }
  return to_x;
}

}  // namespace millrace::cpu::normalizing
