#include "tensor/cpu/conv/direct.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#if defined(__AVX512F__) && defined(__AVX512VL__)
#include <immintrin.h>
#endif

#include "tensor/cpu/channels.h"
#include "tensor/cpu/conv/planes.h"

// With images channels-last, a window's row is one run of kernel width * channels floats, and the windows of
// neighbouring pixels are such runs a step apart. So a tile of pixels is a small matrix product over
// overlapping rows, its sums in registers: pixel by output channels forward, taps by output channel for the
// weights' gradient.
namespace millrace::cpu {

using namespace channels;
using namespace direct;

namespace {

constexpr int kMostPixels = 15;  // with 256-bit registers and two operands, their sums stay in registers
#if defined(__AVX512F__)
constexpr int kMostSums = 24;  // vectors that stay in registers beside the operands
#else
constexpr int kMostSums = 6;
#endif
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

/// kRows rows of the kernel and sixteen of their taps (or those left), summed over one image.
template <int kRows, int kOut, typename Taps>
void weight_tile(const float* x, const float* grad, const Sizes& s, Taps taps, Vec* total) {
  Vec sum[kRows][kOut] = {};
  for (std::int64_t oh = 0; oh < s.out_height; ++oh, x += s.row_step) {
    const float* window = x;
    for (std::int64_t ow = 0; ow < s.out_width; ++ow, window += s.step, grad += kOut) {
      Vec part[kRows];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        part[r] = load(window + r * s.row, taps);
      }
#pragma GCC unroll 8
      for (int o = 0; o < kOut; ++o) {
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          sum[r][o] += grad[o] * part[r];
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int o = 0; o < kOut; ++o) {
      total[r * kOut + o] += sum[r][o];
    }
  }
}

template <int kOut>
void add_image(const float* x, const float* grad, const Sizes& s, Vec* total) {
  constexpr int kMostRows = std::clamp(kMostSums / kOut, 1, 5);
  const std::int64_t tiles = (s.kernel_height + kMostRows - 1) / kMostRows;
  const std::int64_t rows = (s.kernel_height + tiles - 1) / tiles;
  for_each_group(s.run, [&](std::int64_t tap, auto taps) {
    for (std::int64_t kh = 0; kh < s.kernel_height; kh += rows) {
      with_constant<kMostRows>(std::min(rows, s.kernel_height - kh), [&]<int kRows>() {
        weight_tile<kRows, kOut>(x + kh * s.row + tap, grad, s, taps,
                                 total + (tap / kLanes * s.kernel_height + kh) * kOut);
      });
    }
  });
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

bool is_plain(DType dtype, const Shape& weight, const Conv2dOptions& params) {
  return dtype == DType::f32 && weight[1] <= kMostChannels && params.groups == 1 &&
         params.padding == Size2(0) && params.dilation == Size2(1);
}

}  // namespace

bool direct_conv2d_is_faster(DType dtype, const Shape& weight, const Conv2dOptions& params) {
  return is_plain(dtype, weight, params) && weight[0] <= kMostChannels;
}

bool direct_conv2d_data_is_faster(DType dtype, const Shape& weight, const Conv2dOptions& params) {
  return is_plain(dtype, weight, params) && weight[1] * weight[3] <= 2 * kLanes;
}

void direct_conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           const Conv2dOptions& params, Tensor& out) {
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
  if (planes_are_faster(s)) {
    return planes_forward(x.data<float>(), reinterpret_cast<const float*>(packed.data()),
                          reinterpret_cast<const float*>(&offset), s, out.data<float>());
  }
  const std::int64_t tiles = (s.out_width + kMostPixels - 1) / kMostPixels;
  const std::int64_t tile = (s.out_width + tiles - 1) / tiles;
  float* to = out.data<float>();
  for (std::int64_t row = 0; row < s.images * s.out_height; ++row) {
    const float* from =
        x.data<float>() + row / s.out_height * s.height * s.row + row % s.out_height * s.row_step;
    for (std::int64_t ow = 0; ow < s.out_width; ow += tile) {
      const std::int64_t pixels = std::min(tile, s.out_width - ow);
      with_constant<kMostPixels>(pixels, [&]<int kPixels>() {
        forward_tile<kPixels>(from + ow * s.step, packed.data(), offset, s, to);
      });
      to += pixels * s.out_channels;
    }
  }
}

void direct_conv2d_backward_data(const Tensor& grad, const Tensor& weight, const Conv2dOptions& params,
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

void direct_conv2d_backward_weight(const Tensor& x, const Tensor& grad, const Conv2dOptions& params,
                                   Tensor& grad_weight, Tensor& grad_bias) {
  const Sizes s = sizes_of(x, grad, grad_weight.shape(), params);
  const std::int64_t vectors = (s.run + kLanes - 1) / kLanes;
  // For each sixteen taps of a row of the kernel one vector for each output channel.
  thread_local std::vector<Vec> total;
  total.assign(static_cast<std::size_t>(vectors * s.kernel_height * s.out_channels), Vec{});
  Vec bias{};
  const float* image = x.data<float>();
  const float* g = grad.data<float>();
  // Sums of one image first, then over images: closer than one long sum.
  for (std::int64_t n = 0; n < s.images; ++n, image += s.height * s.row, g += s.pixels() * s.out_channels) {
    with_constant<kMostChannels>(s.out_channels,
                                 [&]<int kOut>() { add_image<kOut>(image, g, s, total.data()); });
    Vec sum{};
    for (std::int64_t i = 0; i < s.pixels() && grad_bias.defined(); ++i) {
      sum += load(g + i * s.out_channels, s.out_channels);
    }
    bias += sum;
  }
  if (grad_bias.defined()) {
    store(grad_bias.data<float>(), bias, s.out_channels);
  }
  float* to = grad_weight.data<float>();
  for (std::int64_t o = 0; o < s.out_channels; ++o, to += s.taps()) {
    for_each_tap(s, [&](std::int64_t tap, std::int64_t kh, std::int64_t kw, std::int64_t c) {
      const std::int64_t place = tap - kh * s.run, vector = place / kLanes * s.kernel_height + kh;
      to[(c * s.kernel_height + kh) * s.kernel_width + kw] =
          total[static_cast<std::size_t>(vector * s.out_channels + o)][place % kLanes];
    });
  }
}

}  // namespace millrace::cpu
