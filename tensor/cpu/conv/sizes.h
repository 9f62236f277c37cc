#pragma once

#include <cstdint>

#include "tensor/cpu/image_sizes.h"
#include "tensor/kernels/options.h"

namespace millrace::cpu {

/// Steps and dilations of one, and one group.
inline bool is_dense(const Conv2dOptions& params) {
  return params.stride == Size2(1) && params.dilation == Size2(1) && params.groups == 1;
}

}  // namespace millrace::cpu

/// What the direct convolutions share; see direct.cpp.
namespace millrace::cpu::direct {

inline constexpr std::int64_t kMostChannels = 8;  // in and out

struct Sizes {
  std::int64_t images, channels, height, width;  // of x
  std::int64_t out_channels, out_height, out_width;
  std::int64_t kernel_height, kernel_width, run;  // run: kernel width * channels
  std::int64_t row_step, step;                    // floats from one output row or pixel to the next, in x
  std::int64_t row;                               // floats of a row of x
  std::int64_t taps() const { return kernel_height * run; }
  std::int64_t pixels() const { return out_height * out_width; }
};

inline Sizes sizes_of(const Tensor& x, const Tensor& out, const Shape& weight, const Conv2dOptions& params) {
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

}  // namespace millrace::cpu::direct
