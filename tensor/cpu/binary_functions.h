#pragma once

#include <cmath>
#include <type_traits>

#include "tensor/cpu/floats.h"
#include "tensor/kernels/operations.h"

/// Functions of one pair of elements, numbers or vectors of floats alike: what BinaryOp names.
namespace millrace::cpu {

struct Add {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(a + b);
  }
};
struct Sub {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(a - b);
  }
};
struct Mul {
  template <typename T>
  T operator()(T a, T b) const {
    return static_cast<T>(a * b);
  }
};
struct Div {  // floating types only: operations convert integers first
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      return b == 0 ? T{0} : static_cast<T>(a / b);
    } else {
      return a / b;
    }
  }
};
struct Maximum {  // not a number wins, as in PyTorch
  template <typename T>
  T operator()(T a, T b) const {
    return (a > b) | (a != a) ? a : b;
  }
};
struct Minimum {
  template <typename T>
  T operator()(T a, T b) const {
    return (a < b) | (a != a) ? a : b;
  }
};
template <typename F>
struct Reversed {
  template <typename T>
  T operator()(T a, T b) const {
    return F()(b, a);
  }
};
struct Pow {
  template <typename T>
  T operator()(T a, T b) const {
    if constexpr (std::is_same_v<T, Floats>) {
      for (int i = 0; i < kWidth; ++i) {
        a[i] = std::pow(a[i], b[i]);
      }
      return a;
    } else if constexpr (std::is_integral_v<T>) {
      return power(a, b);
    } else {
      return std::pow(a, b);
    }
  }

 private:
  /// By squaring, with the wrap-around of T; a negative exponent gives 0 except for the bases 1 and -1.
  template <typename T>
  static T power(T base, T exponent) {
    using U = std::make_unsigned_t<T>;
    if constexpr (std::is_signed_v<T>) {
      if (exponent < 0) {
        return base == 1 ? T{1} : base == -1 ? static_cast<T>(exponent % 2 == 0 ? 1 : -1) : T{0};
      }
    }
    std::uint64_t result = 1;
    auto factor = static_cast<std::uint64_t>(static_cast<U>(base));
    for (auto left = static_cast<U>(exponent); left > 0; left = static_cast<U>(left >> 1), factor *= factor) {
      if (left & 1) {
        result *= factor;
      }
    }
    return static_cast<T>(result);
  }
};

/// Calls `f` with the functor of `op`.
template <typename F>
void with_op(BinaryOp op, F&& f) {
  switch (op) {
    case BinaryOp::add:
      return f(Add{});
    case BinaryOp::sub:
      return f(Sub{});
    case BinaryOp::mul:
      return f(Mul{});
    case BinaryOp::div:
      return f(Div{});
    case BinaryOp::maximum:
      return f(Maximum{});
    case BinaryOp::minimum:
      return f(Minimum{});
    case BinaryOp::pow:
      return f(Pow{});
    case BinaryOp::rsub:
      return f(Reversed<Sub>{});
    case BinaryOp::rdiv:
      return f(Reversed<Div>{});
  }
}

}  // namespace millrace::cpu
