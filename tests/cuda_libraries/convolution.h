#pragma once

#include <array>
#include <cstdint>
#include <library_types.h>

#include "sums.h"

namespace millrace::fakes {

/// N, C, H, W (or K, C, R, S) in any memory order.
struct ConvolutionTensor {
  cudaDataType type = CUDA_R_32F;
  std::array<std::int64_t, 4> sizes{}, strides{};

  std::int64_t elements() const;  ///< From the first to the last.
  std::size_t bytes() const { return static_cast<std::size_t>(elements()) * size_of(type); }
};

/// A convolution as the graph API describes it. Groups are x's channels by the weights'.
struct Convolution {
  enum class Result : std::uint8_t { y, x, weight } result = Result::y;
  ConvolutionTensor x, weight, y;
  std::array<std::int64_t, 2> padding_before{}, padding_behind{}, strides{}, dilations{};
  bool flips_weights = false;
  double alpha = 1, beta = 0;  // result = alpha * sums + beta * what is there
  Kept kept = Kept::all;

  /// Whether sizes, groups and the window agree.
  bool fits() const;
  void run(void* x_data, void* weight_data, void* y_data) const;
};

}  // namespace millrace::fakes
