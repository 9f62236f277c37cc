#include <cmath>
#include <numbers>

#include "tensor/cuda/elementwise.cuh"
#include "tensor/kernels/elementwise.h"

namespace millrace::cuda {

namespace {

/// The standard normal distribution up to x; the tail keeps its digits.
template <typename S>
__device__ S normal_distribution(S x) {
  return S{0.5} * std::erfc(-x * S{std::numbers::sqrt2 / 2});
}

template <typename S>
__device__ S gelu_slope(S x) {
  constexpr S kScale{std::numbers::inv_sqrtpi / std::numbers::sqrt2};
  return normal_distribution(x) + x * std::exp(S{-0.5} * x * x) * kScale;
}

/// Those that keep integers.
template <typename S>
struct Simple {
  UnaryOp op;

  __device__ S operator()(S x) const {
    if constexpr (std::is_unsigned_v<S>) {
      return op == UnaryOp::neg ? static_cast<S>(-x) : x;
    } else if (op == UnaryOp::neg) {
      return -x;
    } else if (op == UnaryOp::abs) {
      return std::abs(x);
    } else {
      return x < S{0} ? S{0} : x;  // relu: not a number stays so
    }
  }
};

template <typename S>
struct Transcendental {
  UnaryOp op;

  __device__ S operator()(S x) const {
    switch (op) {
      case UnaryOp::exp:
        return std::exp(x);
      case UnaryOp::log:
        return std::log(x);
      case UnaryOp::sqrt:
        return std::sqrt(x);
      case UnaryOp::tanh:
        return std::tanh(x);
      case UnaryOp::sigmoid:
        return S{1} / (S{1} + std::exp(-x));
      default:
        return x * normal_distribution(x);
    }
  }
};

/// The gradient, given x or op(x), whichever `unary_backward` says.
template <typename S>
struct Backward {
  UnaryOp op;

  __device__ S operator()(S g, S v) const {
    switch (op) {
      case UnaryOp::exp:
        return g * v;
      case UnaryOp::log:
        return g / v;
      case UnaryOp::sqrt:
        return g / (v + v);
      case UnaryOp::tanh:
        return g * (S{1} - v * v);
      case UnaryOp::abs:
        return v > S{0} ? g : v < S{0} ? -g : S{0};
      case UnaryOp::neg:
        return -g;
      case UnaryOp::sigmoid:
        return g * v * (S{1} - v);
      case UnaryOp::relu:
        return v > S{0} ? g : S{0};
      default:
        return g * gelu_slope(v);
    }
  }
};

}  // namespace

const KernelRow kUnary("unary", cuda::unary, {takes::like_out("x"), takes::any("out")});
void unary(UnaryOp op, const Tensor& x, Tensor& out) {
  kUnary.check({&x, &out});
  if (op == UnaryOp::abs || op == UnaryOp::neg || op == UnaryOp::relu) {
    return visit_types(out.dtype(), [&]<typename T>() { map<T, T>("unary", Simple<Scalar<T>>{op}, out, x); });
  }
  visit_floats(out.dtype(), "sigmoid or gelu",  // operations convert integers first
               [&]<typename T>() { map<T, T>("unary", Transcendental<Scalar<T>>{op}, out, x); });
}

const KernelRow kUnaryBackward("unary_backward", cuda::unary_backward,
                               {{"grad", takes::kFloat, Order::any, "grad_x"},
                                {"x", takes::kFloat, Order::any, "grad_x", true},
                                {"out", takes::kFloat, Order::any, "grad_x", true},
                                {"grad_x", takes::kFloat, Order::any}});
void unary_backward(UnaryOp op, const Tensor& grad, const Tensor& x, const Tensor& out, Tensor& grad_x) {
  kUnaryBackward.check({&grad, &x, &out, &grad_x});
  const bool takes_result = op == UnaryOp::exp || op == UnaryOp::sqrt || op == UnaryOp::tanh ||
                            op == UnaryOp::sigmoid || (op == UnaryOp::relu && out.defined());
  const Tensor& given = op == UnaryOp::neg ? grad : takes_result ? out : x;
  visit_floats(grad_x.dtype(), "backward",
               [&]<typename T>() { map<T, T, T>("backward", Backward<Scalar<T>>{op}, grad_x, grad, given); });
}

}  // namespace millrace::cuda
