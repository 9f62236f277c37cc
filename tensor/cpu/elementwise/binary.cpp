#include "tensor/cpu/binary_functions.h"
#include "tensor/cpu/elementwise/map.h"
#include "tensor/kernels/elementwise.h"

namespace millrace::cpu {

void binary(BinaryOp op, const Tensor& a, const Tensor& b, Tensor& out) {
  with_op(op, [&](auto f) { visit(out.dtype(), [&]<typename T>() { map<T>(f, out, a, b); }); });
}

void binary_scalar(BinaryOp op, const Tensor& a, double b, Tensor& out) {
  if (op == BinaryOp::pow && b == 2) {
    return binary(BinaryOp::mul, a, a, out);
  }
  if (op == BinaryOp::pow && b == 0.5 && is_floating(out.dtype())) {
    return unary(UnaryOp::sqrt, a, out);
  }
  // The number keeps its digits beside the half types, which are computed in f32.
  with_op(op, [&](auto f) {
    visit(out.dtype(),
          [&]<typename T>() { map<T>([f, number = lane<T>(b)](auto x) { return f(x, number); }, out, a); });
  });
}

void add_scaled(const Tensor& a, const Tensor& b, double alpha, Tensor& out) {
  visit(out.dtype(), [&]<typename T>() {
    map<T>([factor = lane<T>(alpha)](auto x, auto y) { return static_cast<decltype(x)>(x + factor * y); },
           out, a, b);
  });
}

void clamp(const Tensor& x, double low, double high, Tensor& out) {
  visit(out.dtype(), [&]<typename T>() {
    const auto bound = [](double value) {  // an integer type's own range bounds it anyway
      if constexpr (std::is_integral_v<T>) {
        constexpr auto lowest = static_cast<double>(std::numeric_limits<T>::lowest());
        constexpr auto largest = static_cast<double>(std::numeric_limits<T>::max());
        return value <= lowest    ? std::numeric_limits<T>::lowest()
               : value >= largest ? std::numeric_limits<T>::max()
                                  : static_cast<T>(value);
      } else {
        return lane<T>(value);
      }
    };
    map<T>(
        [low = bound(low), high = bound(high)](auto v) {
          const decltype(v) raised = v < low ? low : v;
          return raised > high ? high : raised;
        },
        out, x);
  });
}

namespace {

template <typename F>
void with_op(CompareOp op, F&& f) {
  switch (op) {
    case CompareOp::equal:
      return f([](auto a, auto b) { return a == b; });
    case CompareOp::not_equal:
      return f([](auto a, auto b) { return a != b; });
    case CompareOp::less:
      return f([](auto a, auto b) { return a < b; });
    case CompareOp::less_equal:
      return f([](auto a, auto b) { return a <= b; });
    case CompareOp::greater:
      return f([](auto a, auto b) { return a > b; });
    case CompareOp::greater_equal:
      return f([](auto a, auto b) { return a >= b; });
  }
}

}  // namespace

void compare(CompareOp op, const Tensor& a, const Tensor& b, Tensor& out) {
  const auto nest = nest_of(out.shape(), out, a, b);
  const std::int64_t count = nest.row();
  const auto [so, sa, sb] = nest.row_strides();
  with_op(op, [&](auto f) {
    visit(a.dtype(), [&]<typename T>() {
      nest.for_each_row([&, so = so, sa = sa, sb = sb](const auto& offsets) {
        std::uint8_t* to = out.data<std::uint8_t>() + offsets[0];
        const T* left = a.data<T>() + offsets[1];
        const T* right = b.data<T>() + offsets[2];
        using S = Scalar<T>;
        for (std::int64_t i = 0; i < count; ++i) {
          to[i * so] = f(static_cast<S>(left[i * sa]), static_cast<S>(right[i * sb]));
        }
      });
    });
  });
}

void where(const Tensor& condition, const Tensor& a, const Tensor& b, Tensor& out) {
  const auto nest = nest_of(out.shape(), out, condition, a, b);
  const std::int64_t count = nest.row();
  const auto [so, sc, sa, sb] = nest.row_strides();
  visit(out.dtype(), [&]<typename T>() {
    nest.for_each_row([&, so = so, sc = sc, sa = sa, sb = sb](const auto& offsets) {
      T* to = out.data<T>() + offsets[0];
      const std::uint8_t* choice = condition.data<std::uint8_t>() + offsets[1];
      const T* left = a.data<T>() + offsets[2];
      const T* right = b.data<T>() + offsets[3];
      for (std::int64_t i = 0; i < count; ++i) {
        to[i * so] = choice[i * sc] != 0 ? left[i * sa] : right[i * sb];
      }
    });
  });
}

}  // namespace millrace::cpu
