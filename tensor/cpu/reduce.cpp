#include "tensor/kernels/reduce.h"

#include <limits>
#include <vector>

#include "tensor/cpu/binary_functions.h"
#include "tensor/nest.h"

// Sums are taken in f64 (floating types) or i64, in one fixed order: along rows first in blocks of vectors,
// then over rows.
namespace millrace::cpu {

namespace {

template <typename T>
using SumType = std::conditional_t<std::is_integral_v<T>, std::int64_t, double>;

template <typename T>
bool is_nan(T value) {
  if constexpr (std::is_integral_v<T>) {
    return false;
  } else {
    return std::isnan(value);
  }
}

constexpr std::int64_t kBlock = 32 * kWidth;  // few enough that f32 sums of a block lose nothing that matters

/// The sum of `count` elements that lie side by side.
template <typename T>
SumType<T> sum_row(const T* x, std::int64_t count) {
  SumType<T> total = 0;
  std::int64_t i = 0;
  if constexpr (is_vectorized<T>) {
    while (i + 4 * kWidth <= count) {
      const std::int64_t end = std::min(count, i + kBlock);
      Floats part[4] = {};
      for (; i + 4 * kWidth <= end; i += 4 * kWidth) {
        for (int k = 0; k < 4; ++k) {
          part[k] += load_floats(x + i + k * kWidth);
        }
      }
      const Floats sum = (part[0] + part[1]) + (part[2] + part[3]);
      for (int k = 0; k < kWidth; ++k) {
        total += sum[k];
      }
    }
  }
  for (; i < count; ++i) {
    total += static_cast<Scalar<T>>(x[i]);
  }
  return total;
}

struct Sum {
  template <typename T>
  using Type = SumType<T>;
  template <typename T>
  static constexpr Type<T> start() {
    return 0;
  }
  template <typename A>
  static A combine(A a, A b) {
    return a + b;
  }
  template <typename T>
  static Type<T> row(const T* x, std::int64_t count) {
    return sum_row(x, count);
  }
};

template <typename Op, bool kMax>
struct Extreme {
  template <typename T>
  using Type = Scalar<T>;
  template <typename T>
  static constexpr Type<T> start() {
    using L = std::numeric_limits<Type<T>>;
    if constexpr (L::has_infinity) {
      return kMax ? -L::infinity() : L::infinity();
    }
    return kMax ? L::lowest() : L::max();
  }
  template <typename A>
  static A combine(A a, A b) {
    return Op{}(a, b);
  }
  template <typename T>
  static Type<T> row(const T* x, std::int64_t count) {
    Type<T> best = start<T>();
    std::int64_t i = 0;
    if constexpr (is_vectorized<T>) {
      Floats lanes = splat(best);
      for (; i + kWidth <= count; i += kWidth) {
        lanes = Op{}(lanes, load_floats(x + i));
      }
      for (int k = 0; k < kWidth; ++k) {
        best = combine<Type<T>>(best, lanes[k]);
      }
    }
    for (; i < count; ++i) {
      best = combine<Type<T>>(best, x[i]);
    }
    return best;
  }
};

/// The accumulators of all results. They lie like `out`, which is dense.
template <typename R, typename T>
std::vector<typename R::template Type<T>> accumulate(const Tensor& x, const Tensor& out) {
  using A = typename R::template Type<T>;
  std::vector<A> sums(static_cast<std::size_t>(out.numel()), R::template start<T>());
  Strides out_strides = out.strides();
  for (int i = 0; i < x.dim(); ++i) {
    if (out.shape()[i] == 1) {
      out_strides[i] = 0;
    }
  }
  const Nest<2> nest(x.shape(), {&x.strides(), &out_strides});
  const std::int64_t count = nest.row();
  const auto [x_stride, out_stride] = nest.row_strides();
  nest.for_each_row([&, x_stride = x_stride, out_stride = out_stride](const auto& offsets) {
    const T* from = x.data<T>() + offsets[0];
    A* to = sums.data() + offsets[1];
    if (out_stride == 0 && x_stride == 1) {
      *to = R::template combine<A>(*to, R::row(from, count));
    } else if (out_stride == 1 && x_stride == 1) {
      for (std::int64_t i = 0; i < count; ++i) {
        to[i] = R::template combine<A>(to[i], static_cast<Scalar<T>>(from[i]));
      }
    } else {
      for (std::int64_t i = 0; i < count; ++i) {
        to[i * out_stride] =
            R::template combine<A>(to[i * out_stride], static_cast<Scalar<T>>(from[i * x_stride]));
      }
    }
  });
  return sums;
}

template <typename A>
void write(const std::vector<A>& values, Tensor& out) {
  visit(out.dtype(), [&]<typename T>() {
    std::transform(values.begin(), values.end(), out.data<T>(),
                   [](A value) { return static_cast<T>(static_cast<Scalar<T>>(value)); });
  });
}

}  // namespace

void reduce(ReduceOp op, const Tensor& x, Tensor& out) {
  visit(x.dtype(), [&]<typename T>() {
    switch (op) {
      case ReduceOp::sum:
        return write(accumulate<Sum, T>(x, out), out);
      case ReduceOp::max:
        return write(accumulate<Extreme<Maximum, true>, T>(x, out), out);
      case ReduceOp::min:
        return write(accumulate<Extreme<Minimum, false>, T>(x, out), out);
    }
  });
}

void argmax(const Tensor& x, int dim, Tensor& out) {
  Strides x_strides = x.strides();
  x_strides[dim] = 0;
  const auto nest = Nest<2>(out.shape(), {&out.strides(), &x_strides});
  const std::int64_t count = x.shape()[dim];
  const std::int64_t step = x.strides()[dim];
  const auto [out_stride, x_stride] = nest.row_strides();
  visit(x.dtype(), [&]<typename T>() {
    nest.for_each_row([&, out_stride = out_stride, x_stride = x_stride](const auto& offsets) {
      for (std::int64_t row = 0; row < nest.row(); ++row) {
        const T* from = x.data<T>() + offsets[1] + row * x_stride;
        std::int64_t best = 0;
        Scalar<T> value = static_cast<Scalar<T>>(from[0]);
        for (std::int64_t i = 1; i < count && !is_nan(value); ++i) {  // the first not-a-number wins
          const auto next = static_cast<Scalar<T>>(from[i * step]);
          if (next > value || is_nan(next)) {
            value = next;
            best = i;
          }
        }
        out.data<std::int64_t>()[offsets[0] + row * out_stride] = best;
      }
    });
  });
}

}  // namespace millrace::cpu
