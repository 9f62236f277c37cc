#include "tensor/cpu/batch_norm.h"

#include <algorithm>
#include <vector>

#include "tensor/cpu/visit_float.h"
#include "tensor/kernels/norm.h"

// Rows are pixels, columns channels. Sums run in f32 over a block of rows that stays in the cache, then in
// f64 over the blocks: one pass over memory, and better than f32 sums of any order.
namespace millrace::cpu {

using namespace channels;
using namespace normalizing;

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

/// `residual`, added before the activation, may be null.
template <typename ActivationFunction, typename T>
void apply(const T* x, const T* residual, Rows shape, const Affine& affine, T* out) {
  const auto [rows, channels] = shape;
  for (std::int64_t first = 0; first < rows; first += kBlockRows) {
    const std::int64_t last = std::min(first + kBlockRows, rows);
    for_each_strip(channels, [&]<int kVecs>(std::int64_t c, auto lanes) {
      Vec m[kVecs], s[kVecs], b[kVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        m[v] = load(affine.mean + c + v * kLanes, lanes);
        s[v] = load(affine.scale.data() + c + v * kLanes, lanes);
        b[v] = load(affine.shift.data() + c + v * kLanes, lanes);
      }
      for (std::int64_t r = first; r < last; ++r) {
        const std::int64_t place = r * channels + c;
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) {
          Vec z = (load(x + place + v * kLanes, lanes) - m[v]) * s[v] + b[v];
          if (residual != nullptr) {
            z += load(residual + place + v * kLanes, lanes);
          }
          store(out + place + v * kLanes, ActivationFunction::value(z), lanes);
        }
      }
    });
  }
}

/// Per channel: the sum of the gradient of z, and of that times (x - mean). `grad` is that of the
/// activation's result; unless it is Identity, what becomes of it goes to `grad_z`, where that is not null.
template <typename ActivationFunction, typename T>
void gradient_sums(const T* grad, const T* x, Rows shape, const Affine& affine, T* grad_z, double* sums,
                   double* products) {
  constexpr bool kActivated = !std::is_same_v<ActivationFunction, Identity>;
  const auto [rows, channels] = shape;
  for (std::int64_t first = 0; first < rows; first += kBlockRows) {
    const std::int64_t last = std::min(first + kBlockRows, rows);
    for_each_strip(channels, [&]<int kVecs>(std::int64_t c, auto lanes) {
      Vec m[kVecs], s[kVecs] = {}, b[kVecs] = {}, sum[kVecs] = {}, product[kVecs] = {};
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        m[v] = load(affine.mean + c + v * kLanes, lanes);
        if constexpr (kActivated) {
          s[v] = load(affine.scale.data() + c + v * kLanes, lanes);
          b[v] = load(affine.shift.data() + c + v * kLanes, lanes);
        }
      }
      for (std::int64_t r = first; r < last; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) {
          const std::int64_t place = r * channels + c + v * kLanes;
          Vec g = load(grad + place, lanes);
          const Vec distance = load(x + place, lanes) - m[v];
          if constexpr (kActivated) {
            g = ActivationFunction::gradient(distance * s[v] + b[v], g);
            if (grad_z != nullptr) {
              store(grad_z + place, g, lanes);
            }
          }
          sum[v] += g;
          product[v] += g * distance;
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

template <typename T>
void gradient(const T* grad, const T* x, Rows shape, const float* mean, const Coefficients& to_x, T* out) {
  const auto [rows, channels] = shape;
  for (std::int64_t first = 0; first < rows; first += kBlockRows) {
    const std::int64_t last = std::min(first + kBlockRows, rows);
    for_each_strip(channels, [&]<int kVecs>(std::int64_t start, auto lanes) {
      Vec m[kVecs], va[kVecs], vb[kVecs], vc[kVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        const std::int64_t channel = start + v * kLanes;
        m[v] = load(mean + channel, lanes);
        va[v] = load(to_x.a.data() + channel, lanes);
        vb[v] = load(to_x.b.data() + channel, lanes);
        vc[v] = load(to_x.c.data() + channel, lanes);
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

struct Backward : BackwardArguments {
  template <typename ActivationFunction, typename T>
  void run(const Affine& affine) const {
    constexpr bool kActivated = !std::is_same_v<ActivationFunction, Identity>;
    const Rows shape(x);
    const auto size = static_cast<std::size_t>(shape.channels);
    std::vector<double> sums(size), products(size);
    T* out = grad_x.defined() ? grad_x.data<T>() : nullptr;
    if (kActivated || training || grad_weight.defined() || grad_bias.defined()) {
      gradient_sums<ActivationFunction>(grad.data<T>(), x.data<T>(), shape, affine, out, sums.data(),
                                        products.data());
    }
    const Coefficients to_x = finish_sums(*this, shape.rows, sums, products);
    if (out != nullptr) {
      gradient(kActivated ? out : grad.data<T>(), x.data<T>(), shape, affine.mean, to_x, out);
    }
  }
};

}  // namespace

void batch_norm_statistics(const Tensor& x, Tensor& mean, Tensor& var) {
  visit_float(x.dtype(), "batch_norm",
              [&]<typename T>() { statistics(x.data<T>(), Rows(x), mean.data<float>(), var.data<float>()); });
}

void batch_norm_apply(const Tensor& x, const Tensor& mean, const Tensor& var, double eps,
                      const Tensor& weight, const Tensor& bias, Tensor& out) {
  const Affine affine = affine_of(mean, var, eps, weight, bias);
  visit_float(x.dtype(), "batch_norm", [&]<typename T>() {
    apply<Identity, T>(x.data<T>(), nullptr, Rows(x), affine, out.data<T>());
  });
}

void batch_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& mean, const Tensor& var,
                         double eps, const Tensor& weight, bool training, Tensor& grad_x, Tensor& grad_weight,
                         Tensor& grad_bias) {
  const Backward backward{{grad, x, mean, var, eps, weight, training, grad_x, grad_weight, grad_bias}};
  visit_float(x.dtype(), "batch_norm", [&]<typename T>() {
    backward.run<Identity, T>({.mean = mean.data<float>(), .scale = {}, .shift = {}});
  });
}

void batch_norm_activation_apply(UnaryOp activation, const Tensor& x, const Tensor& residual,
                                 const Tensor& mean, const Tensor& var, double eps, const Tensor& weight,
                                 const Tensor& bias, Tensor& out) {
  const Affine affine = affine_of(mean, var, eps, weight, bias);
  visit_float(x.dtype(), "batch_norm", [&]<typename T>() {
    visit_activation(activation, [&]<typename A>() {
      apply<A>(x.data<T>(), residual.defined() ? residual.data<T>() : nullptr, Rows(x), affine,
               out.data<T>());
    });
  });
}

void batch_norm_activation_backward(UnaryOp activation, const Tensor& grad, const Tensor& x,
                                    const Tensor& mean, const Tensor& var, double eps, const Tensor& weight,
                                    const Tensor& bias, bool training, Tensor& grad_x, Tensor& grad_weight,
                                    Tensor& grad_bias) {
  const Affine affine = affine_of(mean, var, eps, weight, bias);
  const Backward backward{{grad, x, mean, var, eps, weight, training, grad_x, grad_weight, grad_bias}};
  visit_float(x.dtype(), "batch_norm", [&]<typename T>() {
    visit_activation(activation, [&]<typename A>() { backward.run<A, T>(affine); });
  });
}

}  // namespace millrace::cpu
