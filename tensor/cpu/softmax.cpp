#include <algorithm>
#include <cmath>

#include "tensor/cpu/visit_float.h"
#include "tensor/kernels/rows.h"

namespace millrace::cpu {
namespace {

/// Calls f(row of a, row of b, row of out) for each row; a and b may be one tensor.
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

}  // namespace

void softmax(const Tensor& x, Tensor& out) {
  if (x.numel() == 0) {
    return;
  }
  visit_float(x.dtype(), "softmax", [&]<typename T>() {
    for_each_row<T>(x, x, out, [](const T* in, const T*, T* to, std::int64_t columns) {
      const float high = highest(in, columns);
      double sum = 0;
      for (std::int64_t c = 0; c < columns; ++c) {
        sum += std::exp(in[c] - high);
      }
      const auto scale = static_cast<float>(1.0 / sum);
      for (std::int64_t c = 0; c < columns; ++c) {
        to[c] = T(std::exp(in[c] - high) * scale);
      }
    });
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
