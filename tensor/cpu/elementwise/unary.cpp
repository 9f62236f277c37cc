#include <cmath>
#include <numbers>

#include "tensor/cpu/elementwise/map.h"
#include "tensor/cpu/functions.h"
#include "tensor/kernels/elementwise.h"

namespace millrace::cpu {

namespace {

// Each operation has a forward and a backward form for Floats and for numbers (f64, integers).

template <typename T, typename F>
T each(T x, F f) {
  if constexpr (std::is_same_v<T, Floats>) {
    for (int i = 0; i < kWidth; ++i) {
      x[i] = f(x[i]);
    }
    return x;
  } else {
    return static_cast<T>(f(x));
  }
}

template <typename T>
T exp_of(T x) {
  if constexpr (std::is_same_v<T, Floats>) {
    return exponential(x);
  } else {
    return static_cast<T>(std::exp(x));
  }
}

template <typename T>
T tanh_of(T x) {
  if constexpr (std::is_same_v<T, Floats>) {
    return hyperbolic_tangent(x);
  } else {
    return static_cast<T>(std::tanh(x));
  }
}

template <typename T>
T sigmoid_of(T x) {
  if constexpr (std::is_same_v<T, Floats>) {
    return logistic(x);
  } else {
    return static_cast<T>(1 / (1 + std::exp(-static_cast<double>(x))));
  }
}

template <typename T>
T abs_of(T x) {
  if constexpr (std::is_same_v<T, Floats>) {
    return magnitude(x);
  } else {
    return x < 0 ? static_cast<T>(-x) : x;
  }
}

template <typename T>
T gelu_of(T x) {
  if constexpr (std::is_same_v<T, Floats>) {
    return x * normal(x).distribution;
  } else {
    return static_cast<T>(0.5 * x * std::erfc(-static_cast<double>(x) * std::numbers::sqrt2 / 2));
  }
}

template <typename T>
T gelu_slope(T x) {
  if constexpr (std::is_same_v<T, Floats>) {
    const Normal at = normal(x);
    return at.distribution + x * at.density;
  } else {
    const double v = static_cast<double>(x);
    const double density = std::exp(-0.5 * v * v) * (std::numbers::inv_sqrtpi / std::numbers::sqrt2);
    return static_cast<T>(0.5 * std::erfc(-v * std::numbers::sqrt2 / 2) + v * density);
  }
}

template <typename T>
T relu_of(T x) {  // not a number stays so
  return x < T{} ? T{} : x;
}

}  // namespace

void unary(UnaryOp op, const Tensor& x, Tensor& out) {
  visit(out.dtype(), [&]<typename T>() {
    switch (op) {
      case UnaryOp::abs:
        return map<T>([](auto v) { return abs_of(v); }, out, x);
      case UnaryOp::neg:
        return map<T>([](auto v) { return static_cast<decltype(v)>(-v); }, out, x);
      case UnaryOp::relu:
        return map<T>([](auto v) { return relu_of(v); }, out, x);
      default:
        break;
    }
    if constexpr (!std::is_integral_v<T>) {  // operations convert integers first
      switch (op) {
        case UnaryOp::exp:
          return map<T>([](auto v) { return exp_of(v); }, out, x);
        case UnaryOp::log:
          return map<T>([](auto v) { return each(v, [](auto e) { return std::log(e); }); }, out, x);
        case UnaryOp::sqrt:
          return map<T>([](auto v) { return each(v, [](auto e) { return std::sqrt(e); }); }, out, x);
        case UnaryOp::tanh:
          return map<T>([](auto v) { return tanh_of(v); }, out, x);
        case UnaryOp::sigmoid:
          return map<T>([](auto v) { return sigmoid_of(v); }, out, x);
        case UnaryOp::gelu:
          return map<T>([](auto v) { return gelu_of(v); }, out, x);
        default:
          break;
      }
    }
    throw InputError("sigmoid or gelu: got {}, expected a floating type: convert with to(DType::f32)",
                     out.dtype());
  });
}

void unary_backward(UnaryOp op, const Tensor& grad, const Tensor& x, const Tensor& out, Tensor& grad_x) {
  const auto apply = [&]<typename T>() {
    using V = Lane<T>;
    const V one = lane<T>(1);
    switch (op) {
      case UnaryOp::exp:
        return map<T>([](V g, V y) { return g * y; }, grad_x, grad, out);
      case UnaryOp::log:
        return map<T>([](V g, V v) { return g / v; }, grad_x, grad, x);
      case UnaryOp::sqrt:
        return map<T>([](V g, V y) { return g / (y + y); }, grad_x, grad, out);
      case UnaryOp::tanh:
        return map<T>([one](V g, V y) { return g * (one - y * y); }, grad_x, grad, out);
      case UnaryOp::abs:
        return map<T>([](V g, V v) { return v > V{} ? g : v < V{} ? -g : V{}; }, grad_x, grad, x);
      case UnaryOp::neg:
        return map<T>([](V g) { return -g; }, grad_x, grad);
      case UnaryOp::sigmoid:
        return map<T>([one](V g, V y) { return g * y * (one - y); }, grad_x, grad, out);
      case UnaryOp::relu:  // the signs of x and of the result agree: either will do
        return map<T>([](V g, V v) { return v > V{} ? g : V{}; }, grad_x, grad, out.defined() ? out : x);
      case UnaryOp::gelu:
        return map<T>([](V g, V v) { return g * gelu_slope(v); }, grad_x, grad, x);
    }
  };
  switch (grad_x.dtype()) {
    case DType::f32:
      return apply.operator()<float>();
    case DType::f64:
      return apply.operator()<double>();
    case DType::f16:
      return apply.operator()<float16>();
    case DType::bf16:
      return apply.operator()<bfloat16>();
    default:
      throw InputError("backward: got a gradient of type {}, expected a floating type", grad_x.dtype());
  }
}

}  // namespace millrace::cpu
