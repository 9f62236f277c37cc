#pragma once

#include <algorithm>

#include "tensor/cuda/channels.cuh"
#include "tensor/kernels/options.h"

namespace millrace::cuda {

struct Window {
  int origin, extent;  ///< Unclipped: where it starts, how many places it has.
  int begin, end;      ///< Clipped to the image.
};
struct Readers {
  int begin, end;
};

/// The pooling windows along one axis, computed where they are needed: see tensor/cpu/pool/pool_axis.h.
struct PoolAxis {
  int in, out, kernel, stride, padding;
  bool adaptive;

  __device__ Window window(int o) const {
    if (adaptive) {
      const auto first = static_cast<int>(std::int64_t{o} * in / out);
      const auto last = static_cast<int>((std::int64_t{o + 1} * in + out - 1) / out);
      return {first, last - first, first, last};
    }
    const int first = o * stride - padding;
    return {first, kernel, max(first, 0), min(first + kernel, in)};
  }

  /// The outputs whose windows hold input i.
  __device__ Readers readers(int i) const {
    if (adaptive) {
      return {static_cast<int>(std::int64_t{i} * out / in),
              static_cast<int>((std::int64_t{i + 1} * out + in - 1) / in)};
    }
    const int place = i + padding;  // in the padded axis
    return {place < kernel ? 0 : (place - kernel) / stride + 1, min(out, place / stride + 1)};
  }

  /// @throws InputError when a number is too large for the arithmetic above.
  static PoolAxis of(const char* operation, int dim, const Shape& in, const Shape& out,
                     const Pool2dOptions& params) {
    const auto side = [dim](const Size2& size) { return dim == 2 ? size.height : size.width; };
    constexpr std::int64_t kMost = std::int64_t{1} << 29;
    const std::int64_t kernel = side(params.kernel), padding = side(params.padding);
    if (std::max({in[dim], out[dim], kernel, padding}) > kMost) {
      throw InputError("{}: got input {}, kernel {} and padding {}, expected at most 2^29 each on CUDA",
                       operation, in, kernel, padding);
    }
    // A stride beyond the image is never taken.
    return {static_cast<int>(in[dim]), static_cast<int>(out[dim]),
            static_cast<int>(kernel),  static_cast<int>(std::min(side(params.step()), kMost)),
            static_cast<int>(padding), params.is_adaptive()};
  }
};

}  // namespace millrace::cuda
