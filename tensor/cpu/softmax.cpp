#include <algorithm>
#include <cmath>
#include <vector>

#include "tensor/cpu/functions.h"
#include "tensor/cpu/visit_float.h"
#include "tensor/kernels/rows.h"

namespace millrace::cpu {
namespace {

/// Calls f(row of a, row of b, row of out, columns) for each row.
template <typename T, typename F>
void for_each_row(const Tensor& a, const Tensor& b, Tensor& out, F&& f) {
  const std::int64_t rows = a.size(0), columns = a.size(1);
  for (std::int64_t row = 0; row < rows; ++row) {
    f(a.data<T>() + row * columns, b.data<T>() + row * columns, out.data<T>() + row * columns, columns);
  }
}

template <typename T>
float highest(const T* x, std::int64_t columns) {
  float high = x[0];
  for (std::int64_t c = 1; c < columns; ++c) {
    high = std::max(high, static_cast<float>(x[c]));
  }
  return high;
}

/// exp of each of `count` numbers, in place; those behind them, up to a whole vector, are lost.
void exponentials(float* x, std::int64_t count) {
  for (std::int64_t i = 0; i < count; i += kWidth) {
    store_floats(x + i, exponential(load_floats(x + i)));
  }
}

/// How many numbers are computed at a time; a longer row is one block.
constexpr std::int64_t kBlock = 1024;

}  // namespace

void softmax(const Tensor& x, Tensor& out) {
  if (x.numel() == 0) {
    return;
  }
  const std::int64_t rows = x.size(0), columns = x.size(1);
  const std::int64_t most = std::clamp<std::int64_t>(kBlock / columns, 1, rows);
  thread_local std::vector<float> block;
  block.resize(std::max(block.size(), static_cast<std::size_t>(most * columns + kWidth)));
  visit_float(x.dtype(), "softmax", [&]<typename T>() {
    for (std::int64_t first = 0; first < rows; first += most) {
      const std::int64_t last = std::min(first + most, rows);
      float* e = block.data();
      for (std::int64_t row = first; row < last; ++row, e += columns) {
        const T* in = x.data<T>() + row * columns;
        const float high = highest(in, columns);
        for (std::int64_t c = 0; c < columns; ++c) {
          e[c] = in[c] - high;
        }
      }
      exponentials(block.data(), (last - first) * columns);
      e = block.data();
      for (std::int64_t row = first; row < last; ++row, e += columns) {
        T* to = out.data<T>() + row * columns;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t c = 0; c < columns; ++c) {
          sum += e[c];
        }
        const auto scale = static_cast<float>(1.0 / sum);
        for (std::int64_t c = 0; c < columns; ++c) {
          to[c] = T(e[c] * scale);
        }
      }
    }
  });
}

void softmax_backward(const Tensor& grad, const Tensor& out, Tensor& grad_x) {
  if (out.numel() == 0) {
    return;
  }
  visit_float(out.dtype(), "softmax", [&]<typename T>() {
    for_each_row<T>(grad, out, grad_x, [](const T* g, const T* y, T* to, std::int64_t columns) {
      double dot = 0;
      for (std::int64_t c = 0; c < columns; ++c) {
        dot += static_cast<double>(g[c]) * y[c];
      }
      for (std::int64_t c = 0; c < columns; ++c) {
        to[c] = T(y[c] * (g[c] - static_cast<float>(dot)));
      }
    });
  });
}

void log_softmax(const Tensor& x, Tensor& out) {
  if (x.numel() == 0) {
    return;
  }
  visit_float(x.dtype(), "log_softmax", [&]<typename T>() {
    visit_float(out.dtype(), "log_softmax", [&]<typename Out>() {
      const std::int64_t rows = x.size(0), columns = x.size(1);
      const T* in = x.data<T>();
      Out* to = out.data<Out>();
      for (std::int64_t row = 0; row < rows; ++row, in += columns, to += columns) {
        const float high = highest(in, columns);
        double sum = 0;
        for (std::int64_t c = 0; c < columns; ++c) {
          sum += std::exp(in[c] - high);
        }
        const auto log_sum = static_cast<float>(std::log(sum));
        for (std::int64_t c = 0; c < columns; ++c) {
          to[c] = Out(in[c] - high - log_sum);
        }
      }
    });
  });
}

void log_softmax_backward(const Tensor& grad, const Tensor& out, Tensor& grad_x) {
  if (out.numel() == 0) {
    return;
  }
  visit_float(out.dtype(), "log_softmax", [&]<typename T>() {
    for_each_row<T>(grad, out, grad_x, [](const T* g, const T* y, T* to, std::int64_t columns) {
      double sum = 0;
      for (std::int64_t c = 0; c < columns; ++c) {
        sum += g[c];
      }
      for (std::int64_t c = 0; c < columns; ++c) {
        to[c] = T(g[c] - std::exp(static_cast<float>(y[c])) * static_cast<float>(sum));
      }
    });
  });
}

}  // namespace millrace::cpu
