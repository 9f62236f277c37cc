#include <cmath>

#include "tensor/cuda/elementwise.cuh"
#include "tensor/kernels/elementwise.h"

namespace millrace::cuda {

namespace {

/// By squaring, with the wrap-around of T; a negative exponent gives 0 except for the bases 1 and -1.
template <typename T>
__device__ T whole_power(T base, T exponent) {
  if constexpr (std::is_signed_v<T>) {
    if (exponent < 0) {
      return base == 1 ? T{1} : base == -1 ? static_cast<T>(exponent % 2 == 0 ? 1 : -1) : T{0};
    }
  }
  std::uint64_t result = 1;
  auto factor = static_cast<std::uint64_t>(base);  // of a negative base the low bits are right
  for (auto left = static_cast<std::uint64_t>(exponent); left > 0; left >>= 1, factor *= factor) {
    if (left & 1) {
      result *= factor;
    }
  }
  return static_cast<T>(result);
}

/// Which operation is the same for all elements, so choosing it in the kernel costs nothing beside memory.
template <typename S>
struct Arithmetic {
  BinaryOp op;

  static __device__ S divide(S a, S b) {
    if constexpr (std::is_integral_v<S>) {  // operations convert integers first
      return b == 0 ? S{0} : static_cast<S>(a / b);
    } else {
      return a / b;
    }
  }

  __device__ S operator()(S a, S b) const {
    switch (op) {
      case BinaryOp::add:
        return static_cast<S>(a + b);
      case BinaryOp::sub:
        return static_cast<S>(a - b);
      case BinaryOp::rsub:
        return static_cast<S>(b - a);
      case BinaryOp::mul:
        return static_cast<S>(a * b);
      case BinaryOp::div:
        return divide(a, b);
      case BinaryOp::rdiv:
        return divide(b, a);
      case BinaryOp::maximum:  // not a number wins, as in PyTorch
        return (a > b) | (a != a) ? a : b;
      default:
        return (a < b) | (a != a) ? a : b;
    }
  }
};

/// Apart from the others: it takes many registers.
template <typename S>
struct Power {
  __device__ S operator()(S a, S b) const {
    if constexpr (std::is_integral_v<S>) {
      return whole_power(a, b);
    } else {
      return std::pow(a, b);
    }
  }
};

template <typename S>
struct AddScaled {
  S factor;
  __device__ S operator()(S a, S b) const { return static_cast<S>(a + factor * b); }
};

/// An operation whose second operand is one number.
template <typename S, typename F>
struct WithNumber {
  F f;
  S number;
  __device__ S operator()(S a) const { return f(a, number); }
};

template <typename S>
struct Clamp {
  S low, high;
  __device__ S operator()(S x) const {
    const S raised = x < low ? low : x;
    return raised > high ? high : raised;
  }
};

/// A bound as a scalar of T; an integer type's own range bounds it anyway.
template <typename T>
Scalar<T> bound(double value) {
  if constexpr (std::is_integral_v<T>) {
    constexpr auto lowest = static_cast<double>(std::numeric_limits<T>::lowest());
    constexpr auto largest = static_cast<double>(std::numeric_limits<T>::max());
    return value <= lowest    ? std::numeric_limits<T>::lowest()
           : value >= largest ? std::numeric_limits<T>::max()
                              : static_cast<T>(value);
  } else {
    return static_cast<Scalar<T>>(value);
  }
}

}  // namespace

const KernelRow kBinary("binary", cuda::binary,
                        {takes::like_out("a"), takes::like_out("b"), takes::any("out")});
void binary(BinaryOp op, const Tensor& a, const Tensor& b, Tensor& out) {
  kBinary.check({&a, &b, &out});
  visit_types(out.dtype(), [&]<typename T>() {
    using S = Scalar<T>;
    if (op == BinaryOp::pow) {
      return map<T, T, T>("pow", Power<S>{}, out, a, b);
    }
    map<T, T, T>("arithmetic", Arithmetic<S>{op}, out, a, b);
  });
}

const KernelRow kBinaryScalar("binary_scalar", cuda::binary_scalar,
                              {takes::like_out("a"), takes::any("out")});
void binary_scalar(BinaryOp op, const Tensor& a, double b, Tensor& out) {
  kBinaryScalar.check({&a, &out});
  if (op == BinaryOp::pow && b == 2) {
    return binary(BinaryOp::mul, a, a, out);
  }
  if (op == BinaryOp::pow && b == 0.5 && is_floating(out.dtype())) {
    return unary(UnaryOp::sqrt, a, out);
  }
  visit_types(out.dtype(), [&]<typename T>() {
    using S = Scalar<T>;
    const S number = element<S>(b);  // not rounded to the half types
    if (op == BinaryOp::pow) {
      return map<T, T>("pow", WithNumber<S, Power<S>>{{}, number}, out, a);
    }
    map<T, T>("arithmetic", WithNumber<S, Arithmetic<S>>{{op}, number}, out, a);
  });
}

const KernelRow kAddScaled("add_scaled", cuda::add_scaled,
                           {takes::like_out("a"), takes::like_out("b"), takes::any("out")});
void add_scaled(const Tensor& a, const Tensor& b, double alpha, Tensor& out) {
  kAddScaled.check({&a, &b, &out});
  visit_types(out.dtype(), [&]<typename T>() {
    using S = Scalar<T>;
    map<T, T, T>("add_scaled", AddScaled<S>{element<S>(alpha)}, out, a, b);
  });
}

const KernelRow kClamp("clamp", cuda::clamp, {takes::like_out("x"), takes::any("out")});
void clamp(const Tensor& x, double low, double high, Tensor& out) {
  kClamp.check({&x, &out});
  visit_types(out.dtype(), [&]<typename T>() {
    map<T, T>("clamp", Clamp<Scalar<T>>{bound<T>(low), bound<T>(high)}, out, x);
  });
}

}  // namespace millrace::cuda
