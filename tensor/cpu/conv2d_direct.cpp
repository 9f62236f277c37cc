#include "tensor/cpu/conv2d_direct.h"

#include <algorithm>
#include <cstring>
#include <vector>

#if defined(__AVX512F__) && defined(__AVX512VL__)
#include <immintrin.h>
#endif

#include "tensor/cpu/channels.h"
#include "tensor/cpu/image_sizes.h"

// With images channels-last, a window's row is one run of kernel width * channels floats, and the windows of
// neighbouring pixels are such runs a step apart. So a tile of pixels is a small matrix product over
// overlapping rows, its sums in registers: pixel by output channels forward, tap by output channels for the
// weights' gradient.
namespace millrace::cpu {

using namespace channels;

namespace {

constexpr std::int64_t kWidth = 8;
constexpr int kMostSums = 15;  // with 256-bit registers and two operands, these stay in registers
using Eight = float __attribute__((vector_size(32)));

Eight load_first(const float* p, std::int64_t n) {
#if defined(__AVX512F__) && defined(__AVX512VL__)
  return _mm256_maskz_loadu_ps(static_cast<__mmask8>((1u << n) - 1), p);
#else
  Eight value{};
  for (std::int64_t i = 0; i < n; ++i) {
    value[i] = p[i];
  }
  return value;
#endif
}

void store_first(float* p, Eight value, std::int64_t n) {
#if defined(__AVX512F__) && defined(__AVX512VL__)
  _mm256_mask_storeu_ps(p, static_cast<__mmask8>((1u << n) - 1), value);
#else
  for (std::int64_t i = 0; i < n; ++i) {
    p[i] = value[i];
  }
#endif
}

struct Sizes {
  std::int64_t images, channels, height, width;  // of x
  std::int64_t out_channels, out_height, out_width;
  std::int64_t kernel_height, kernel_width, run;  // run: kernel width * channels
  std::int64_t row_step, step;                    // floats from one output row or pixel to the next, in x
  std::int64_t row;                               // floats of a row of x
  std::int64_t taps() const { return kernel_height * run; }
  std::int64_t pixels() const { return out_height * out_width; }
};

Sizes sizes_of(const Tensor& x, const Tensor& out, const Shape& weight, const Conv2dParams& params) {
  const auto [images, channels, height, width] = image_sizes(x);
  const ImageSizes result = image_sizes(out);
  const std::int64_t row = width * channels;
  return {images,
          channels,
          height,
          width,
          weight[0],
          result.height,
          result.width,
          weight[2],
          weight[3],
          weight[3] * channels,
          params.stride.height * row,
          params.stride.width * channels,
          row};
}

/// Calls f with the compile-time constant n, 1 <= n <= kMost.
template <int kMost, typename F>
void with_constant(std::int64_t n, F&& f) {
  if constexpr (kMost > 1) {
    if (n < kMost) {
      return with_constant<kMost - 1>(n, f);
    }
  }
  f.template operator()<kMost>();
}

/// kPixels neighbouring output pixels; `weight` holds a vector of output channels for each tap.
template <int kPixels>
void forward_tile(const float* x, const Eight* weight, Eight bias, const Sizes& s, float* out) {
  Eight sum[kPixels];
  std::fill_n(sum, kPixels, bias);
  for (std::int64_t kh = 0; kh < s.kernel_height; ++kh, x += s.row, weight += s.run) {
    for (std::int64_t tap = 0; tap < s.run; ++tap) {
      const Eight w = weight[tap];
#pragma GCC unroll 16
      for (int p = 0; p < kPixels; ++p) {
        sum[p] += w * x[p * s.step + tap];
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < kPixels; ++p) {
    store_first(out + p * s.out_channels, sum[p], s.out_channels);
  }
}

/// kTaps neighbouring taps of one kernel row, summed over one image.
template <int kTaps>
void weight_tile(const float* x, const float* grad, const Sizes& s, Eight* total) {
  Eight sum[kTaps] = {};
  for (std::int64_t oh = 0; oh < s.out_height; ++oh, x += s.row_step) {
    const float* window = x;
    for (std::int64_t ow = 0; ow < s.out_width; ++ow, window += s.step, grad += s.out_channels) {
      const Eight g = load_first(grad, s.out_channels);
#pragma GCC unroll 16
      for (int t = 0; t < kTaps; ++t) {
        sum[t] += g * window[t];
      }
    }
  }
  for (int t = 0; t < kTaps; ++t) {
    total[t] += sum[t];
  }
}

/// kRows output pixels of one column, through one row of the kernel: each is spread over a run of the
/// gradient of x, in rows of their own, so that no store is soon read again. `weight` holds kVecs vectors of
/// a run for each output channel.
template <int kRows, int kVecs>
void data_tile(const float* grad, const float* weight, const Sizes& s, float* grad_x) {
  const std::int64_t grad_row = s.out_width * s.out_channels;
  Vec sum[kRows][kVecs] = {};
  for (std::int64_t o = 0; o < s.out_channels; ++o, weight += kVecs * kLanes) {
    Vec w[kVecs];
#pragma GCC unroll 2
    for (int v = 0; v < kVecs; ++v) {
      w[v] = load(weight + v * kLanes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVecs; ++v) {
        sum[r][v] += w[v] * grad[r * grad_row + o];
      }
    }
  }
  const std::int64_t last = s.run - (kVecs - 1) * kLanes;  // lanes of the last vector
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    float* to = grad_x + r * s.row_step;
    if constexpr (kVecs == 2) {
      store(to, load(to) + sum[r][0]);
    }
    to += (kVecs - 1) * kLanes;
    const auto add = [&](auto lanes) { store(to, load(to, lanes) + sum[r][kVecs - 1], lanes); };
    last == kLanes ? add(All{}) : add(last);
  }
}

template <int kVecs>
void backward_data(const float* grad, const float* weight, const Sizes& s, float* grad_x) {
  constexpr int kMostRows = 12 / kVecs;
  const std::int64_t tiles = (s.out_height + kMostRows - 1) / kMostRows;
  const std::int64_t tile = (s.out_height + tiles - 1) / tiles;
  for (std::int64_t n = 0; n < s.images;
       ++n, grad += s.pixels() * s.out_channels, grad_x += s.height * s.row) {
    for (std::int64_t oh = 0; oh < s.out_height; oh += tile) {
      with_constant<kMostRows>(std::min(tile, s.out_height - oh), [&]<int kRows>() {
        for (std::int64_t kh = 0; kh < s.kernel_height; ++kh) {
          for (std::int64_t i = 0; i < s.out_width; ++i) {
            // Columns of the two halves in turn: what was just stored is not loaded next.
            const std::int64_t ow = i / 2 + (i % 2 == 0 ? 0 : (s.out_width + 1) / 2);
            data_tile<kRows, kVecs>(grad + (oh * s.out_width + ow) * s.out_channels,
                                    weight + kh * s.out_channels * kVecs * kLanes, s,
                                    grad_x + oh * s.row_step + kh * s.row + ow * s.step);
          }
        }
      });
    }
  }
}

bool is_plain(DType dtype, const Shape& weight, const Conv2dParams& params) {
  return dtype == DType::f32 && weight[1] <= kWidth && params.groups == 1 && params.padding == Size2(0) &&
         params.dilation == Size2(1);
}

/// Calls f(tap, kernel row, kernel column, channel) for each tap in the order of memory.
template <typename F>
void for_each_tap(const Sizes& s, F&& f) {
  std::int64_t tap = 0;
  for (std::int64_t kh = 0; kh < s.kernel_height; ++kh) {
    for (std::int64_t kw = 0; kw < s.kernel_width; ++kw) {
      for (std::int64_t c = 0; c < s.channels; ++c) {
        f(tap++, kh, kw, c);
      }
    }
  }
}

}  // namespace

bool direct_conv2d_is_faster(DType dtype, const Shape& weight, const Conv2dParams& params) {
  return is_plain(dtype, weight, params) && weight[0] <= kWidth;
}

bool direct_conv2d_data_is_faster(DType dtype, const Shape& weight, const Conv2dParams& params) {
  return is_plain(dtype, weight, params) && weight[1] * weight[3] <= 2 * kLanes;
}

void direct_conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           const Conv2dParams& params, Tensor& out) {
  const Sizes s = sizes_of(x, out, weight.shape(), params);
  thread_local std::vector<Eight> packed;
  packed.assign(static_cast<std::size_t>(s.taps()), Eight{});
  const float* w = weight.data<float>();
  for (std::int64_t o = 0; o < s.out_channels; ++o, w += s.taps()) {
    for_each_tap(s, [&](std::int64_t tap, std::int64_t kh, std::int64_t kw, std::int64_t c) {
      packed[static_cast<std::size_t>(tap)][o] = w[(c * s.kernel_height + kh) * s.kernel_width + kw];
    });
  }
  const Eight offset = bias.defined() ? load_first(bias.data<float>(), s.out_channels) : Eight{};
  const std::int64_t tiles = (s.out_width + kMostSums - 1) / kMostSums;
  const std::int64_t tile = (s.out_width + tiles - 1) / tiles;
  float* to = out.data<float>();
  for (std::int64_t row = 0; row < s.images * s.out_height; ++row) {
    const float* from =
        x.data<float>() + row / s.out_height * s.height * s.row + row % s.out_height * s.row_step;
    for (std::int64_t ow = 0; ow < s.out_width; ow += tile) {
      const std::int64_t pixels = std::min(tile, s.out_width - ow);
      with_constant<kMostSums>(pixels, [&]<int kPixels>() {
        forward_tile<kPixels>(from + ow * s.step, packed.data(), offset, s, to);
      });
      to += pixels * s.out_channels;
    }
  }
}

void direct_conv2d_backward_data(const Tensor& grad, const Tensor& weight, const Conv2dParams& params,
                                 Tensor& grad_x) {
  const Sizes s = sizes_of(grad_x, grad, weight.shape(), params);
  const std::int64_t lanes = (s.run + kLanes - 1) / kLanes * kLanes;
  thread_local std::vector<float> packed;
  packed.assign(static_cast<std::size_t>(s.kernel_height * s.out_channels * lanes), 0.0f);
  const float* w = weight.data<float>();
  for (std::int64_t o = 0; o < s.out_channels; ++o, w += s.taps()) {
    for_each_tap(s, [&](std::int64_t tap, std::int64_t kh, std::int64_t kw, std::int64_t c) {
      packed[static_cast<std::size_t>((kh * s.out_channels + o) * lanes + tap - kh * s.run)] =
          w[(c * s.kernel_height + kh) * s.kernel_width + kw];
    });
  }
  float* to = grad_x.data<float>();
  std::fill_n(to, grad_x.numel(), 0.0f);
  const auto run = lanes == kLanes ? backward_data<1> : backward_data<2>;
  run(grad.data<float>(), packed.data(), s, to);
}

void direct_conv2d_backward_weight(const Tensor& x, const Tensor& grad, const Conv2dParams& params,
                                   Tensor& grad_weight, Tensor& grad_bias) {
  const Sizes s = sizes_of(x, grad, grad_weight.shape(), params);
  thread_local std::vector<Eight> total;
  total.assign(static_cast<std::size_t>(s.taps()), Eight{});
  Eight bias{};
  const float* image = x.data<float>();
  const float* g = grad.data<float>();
  // Sums of one image first, then over images: closer than one long sum.
  for (std::int64_t n = 0; n < s.images; ++n, image += s.height * s.row, g += s.pixels() * s.out_channels) {
    for (std::int64_t kh = 0; kh < s.kernel_height; ++kh) {
      for (std::int64_t tap = 0; tap < s.run; tap += kMostSums) {
        with_constant<kMostSums>(std::min<std::int64_t>(kMostSums, s.run - tap), [&]<int kTaps>() {
          weight_tile<kTaps>(image + kh * s.row + tap, g, s,
                             &total[static_cast<std::size_t>(kh * s.run + tap)]);
        });
      }
    }
    if (!grad_bias.defined()) {
      continue;
    }
    Eight sum{};
    for (std::int64_t p = 0; p < s.pixels(); ++p) {
      sum += load_first(g + p * s.out_channels, s.out_channels);
    }
    bias += sum;
  }
  if (grad_bias.defined()) {
    store_first(grad_bias.data<float>(), bias, s.out_channels);
  }
  float* to = grad_weight.data<float>();
  for (std::int64_t o = 0; o < s.out_channels; ++o, to += s.taps()) {
    for_each_tap(s, [&](std::int64_t tap, std::int64_t kh, std::int64_t kw, std::int64_t c) {
      to[(c * s.kernel_height + kh) * s.kernel_width + kw] = total[static_cast<std::size_t>(tap)][o];
    });
  }
}

}  // namespace millrace::cpu
