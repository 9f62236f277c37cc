#include <cassert>
#include <cmath>
#include <vector>

#include "tensor/cpu/channels.h"
#include "tensor/cpu/visit_float.h"
#include "tensor/kernels.h"

// Rows are pixels, columns channels. Sums run in f32 over a block of rows that stays in the cache, then in
// f64 over the blocks: one pass over memory, and better than f32 sums of any order.
namespace millrace::cpu {
using namespace channels;

namespace {

constexpr std::int64_t kBlockRows = 64;

struct Rows {
  std::int64_t rows;
  std::int64_t channels;
  explicit Rows(const Tensor& x) : rows(x.size(1) == 0 ? 0 : x.numel() / x.size(1)), channels(x.size(1)) {}
};

/// Calls f(c, n, lanes) for channels c .. c + 16 n: four vectors at a time, then one, then what is left.
template <typename F>
void for_each_strip(std::int64_t channels, F&& f) {
  std::int64_t c = 0;
  for (; c + 4 * kLanes <= channels; c += 4 * kLanes) {
    f.template operator()<4>(c, All{});
  }
  for (; c + kLanes <= channels; c += kLanes) {
    f.template operator()<1>(c, All{});
  }
  if (c < channels) {
    f.template operator()<1>(c, channels - c);
  }
}

/// The block's mean and its sum of squared distances from it, for kVecs vectors of channels.
template <int kVecs, typename T, typename Lanes>
void block_moments(const T* x, std::int64_t rows, std::int64_t stride, Lanes lanes, float* mean,
                   float* squares) {
  Vec sum[kVecs] = {};
  for (std::int64_t r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      sum[v] += load(x + r * stride + v * kLanes, lanes);
    }
  }
  Vec square[kVecs] = {};
#pragma GCC unroll 4
  for (int v = 0; v < kVecs; ++v) {
    sum[v] *= broadcast(1.0f / static_cast<float>(rows));
  }
  for (std::int64_t r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      const Vec distance = load(x + r * stride + v * kLanes, lanes) - sum[v];
      square[v] += distance * distance;
    }
  }
  for (int v = 0; v < kVecs; ++v) {
    store(mean + v * kLanes, sum[v], lanes);
    store(squares + v * kLanes, square[v], lanes);
  }
}

template <typename T>
void statistics(const T* x, Rows shape, float* mean_out, float* var_out) {
  const auto [rows, channels] = shape;
  const auto size = static_cast<std::size_t>(channels);
  std::vector<double> mean(size), squares(size);
  std::vector<float> block_mean(size), block_squares(size);
  for (std::int64_t first = 0; first < rows; first += kBlockRows) {
    const std::int64_t count = std::min(kBlockRows, rows - first);
    for_each_strip(channels, [&]<int kVecs>(std::int64_t c, auto lanes) {
      block_moments<kVecs>(x + first * channels + c, count, channels, lanes, &block_mean[c],
                           &block_squares[c]);
    });
    // Chan, Golub and LeVeque's update joins the block to what came before.
    const double share = static_cast<double>(count) / static_cast<double>(first + count);
    const double weight = static_cast<double>(first) * share;
    for (std::size_t c = 0; c < size; ++c) {
      const double distance = block_mean[c] - mean[c];
      mean[c] += distance * share;
      squares[c] += block_squares[c] + distance * distance * weight;
    }
  }
  for (std::size_t c = 0; c < size; ++c) {
    mean_out[c] = static_cast<float>(mean[c]);
    var_out[c] = rows == 0 ? 0.0f : static_cast<float>(squares[c] / static_cast<double>(rows));
  }
}

/// out = (x - mean) * scale + shift, each a vector of channels.
template <typename T>
void apply(const T* x, Rows shape, const float* mean, const float* scale, const float* shift, T* out) {
  const auto [rows, channels] = shape;
  for (std::int64_t first = 0; first < rows; first += kBlockRows) {
    const std::int64_t last = std::min(first + kBlockRows, rows);
    for_each_strip(channels, [&]<int kVecs>(std::int64_t c, auto lanes) {
      Vec m[kVecs], s[kVecs], b[kVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        m[v] = load(mean + c + v * kLanes, lanes);
        s[v] = load(scale + c + v * kLanes, lanes);
        b[v] = load(shift + c + v * kLanes, lanes);
      }
      for (std::int64_t r = first; r < last; ++r) {
        const std::int64_t place = r * channels + c;
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) {
          store(out + place + v * kLanes, (load(x + place + v * kLanes, lanes) - m[v]) * s[v] + b[v], lanes);
        }
      }
    });
  }
}

/// Per channel: the sum of the gradient, and of the gradient times (x - mean).
template <typename T>
void gradient_sums(const T* grad, const T* x, Rows shape, const float* mean, double* sums, double* products) {
  const auto [rows, channels] = shape;
  for (std::int64_t first = 0; first < rows; first += kBlockRows) {
    const std::int64_t last = std::min(first + kBlockRows, rows);
    for_each_strip(channels, [&]<int kVecs>(std::int64_t c, auto lanes) {
      Vec m[kVecs], sum[kVecs] = {}, product[kVecs] = {};
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        m[v] = load(mean + c + v * kLanes, lanes);
      }
      for (std::int64_t r = first; r < last; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) {
          const std::int64_t place = r * channels + c + v * kLanes;
          const Vec g = load(grad + place, lanes);
          sum[v] += g;
          product[v] += g * (load(x + place, lanes) - m[v]);
        }
      }
      for (int v = 0; v < kVecs; ++v) {
        for (std::int64_t lane = 0; lane < lanes; ++lane) {
          sums[c + v * kLanes + lane] += sum[v][lane];
          products[c + v * kLanes + lane] += product[v][lane];
        }
      }
    });
  }
}

/// out = grad * a + (x - mean) * b + c, each a vector of channels.
template <typename T>
void gradient(const T* grad, const T* x, Rows shape, const float* mean, const float* a, const float* b,
              const float* c, T* out) {
  const auto [rows, channels] = shape;
  for (std::int64_t first = 0; first < rows; first += kBlockRows) {
    const std::int64_t last = std::min(first + kBlockRows, rows);
    for_each_strip(channels, [&]<int kVecs>(std::int64_t start, auto lanes) {
      Vec m[kVecs], va[kVecs], vb[kVecs], vc[kVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        const std::int64_t channel = start + v * kLanes;
        m[v] = load(mean + channel, lanes);
        va[v] = load(a + channel, lanes);
        vb[v] = load(b + channel, lanes);
        vc[v] = load(c + channel, lanes);
      }
      for (std::int64_t r = first; r < last; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) {
          const std::int64_t place = r * channels + start + v * kLanes;
          store(out + place,
                load(grad + place, lanes) * va[v] + ((load(x + place, lanes) - m[v]) * vb[v] + vc[v]), lanes);
        }
      }
    });
  }
}

float inverse_deviation(float var, double eps) { return static_cast<float>(1.0 / std::sqrt(var + eps)); }

}  // namespace

void batch_norm_statistics(const Tensor& x, Tensor& mean, Tensor& var) {
  visit_float(x.dtype(), "batch_norm",
              [&]<typename T>() { statistics(x.data<T>(), Rows(x), mean.data<float>(), var.data<float>()); });
}

void batch_norm_apply(const Tensor& x, const Tensor& mean, const Tensor& var, double eps,
                      const Tensor& weight, const Tensor& bias, Tensor& out) {
  const Rows shape(x);
  const auto size = static_cast<std::size_t>(shape.channels);
  std::vector<float> scale(size), shift(size);
  for (std::size_t c = 0; c < size; ++c) {
    scale[c] =
        inverse_deviation(var.data<float>()[c], eps) * (weight.defined() ? weight.data<float>()[c] : 1.0f);
    shift[c] = bias.defined() ? bias.data<float>()[c] : 0.0f;
  }
  visit_float(x.dtype(), "batch_norm", [&]<typename T>() {
    apply(x.data<T>(), shape, mean.data<float>(), scale.data(), shift.data(), out.data<T>());
  });
}

void batch_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& mean, const Tensor& var,
                         double eps, const Tensor& weight, bool training, Tensor& grad_x, Tensor& grad_weight,
                         Tensor& grad_bias) {
  const Rows shape(x);
  const auto size = static_cast<std::size_t>(shape.channels);
  std::vector<double> sums(size), products(size);
  const bool needs_sums = training || grad_weight.defined() || grad_bias.defined();
  std::vector<float> a(size), b(size), c(size);
  visit_float(x.dtype(), "batch_norm", [&]<typename T>() {
    const float* means = mean.data<float>();
    if (needs_sums) {
      gradient_sums(grad.data<T>(), x.data<T>(), shape, means, sums.data(), products.data());
    }
    for (std::size_t i = 0; i < size; ++i) {
      const double inverse = 1.0 / std::sqrt(var.data<float>()[i] + eps);
      const double scale = inverse * (weight.defined() ? weight.data<float>()[i] : 1.0f);
      const double per_row =
          training ? scale / static_cast<double>(std::max<std::int64_t>(shape.rows, 1)) : 0.0;
      a[i] = static_cast<float>(scale);
      b[i] = static_cast<float>(-per_row * products[i] * inverse * inverse);
      c[i] = static_cast<float>(-per_row * sums[i]);
      if (grad_weight.defined()) {
        grad_weight.data<float>()[i] = static_cast<float>(products[i] * inverse);
      }
      if (grad_bias.defined()) {
        grad_bias.data<float>()[i] = static_cast<float>(sums[i]);
      }
    }
    if (!grad_x.defined()) {
      return;
    }
    gradient(grad.data<T>(), x.data<T>(), shape, means, a.data(), b.data(), c.data(), grad_x.data<T>());
  });
}

}  // namespace millrace::cpu
