#pragma once

#include <cstdint>
#include <string>

/// Options that kernels, differentiable operations and layers have in common.
namespace millrace {

/// Height and width; one number stands for both.
struct Size2 {
  std::int64_t height;
  std::int64_t width;
  constexpr Size2(std::int64_t both) : height(both), width(both) {}  // NOLINT: {.kernel = 3} is meant to work
  constexpr Size2(std::int64_t h, std::int64_t w) : height(h), width(w) {}
  bool operator==(const Size2&) const = default;
};
std::string to_string(Size2 size);  ///< "(3, 5)"

/// Of a convolution.
struct Conv2dOptions {
  Size2 kernel = 0;  ///< Of a layer's weight. Operations go by the weight that they get: 0, or its size.
  Size2 stride = 1;
  Size2 padding = 0;
  Size2 dilation = 1;
  std::int64_t groups = 1;
  bool bias = true;  ///< Whether a layer has one.
  /// A max pooling of 2x2 windows behind, in the same pass where that is faster. Kernels go by out's size.
  bool max_pool = false;
};

/// Of a pooling.
struct Pool2dOptions {
  Size2 kernel = 2;  ///< 0 in the adaptive form, for kernels: windows follow from the sizes of x and out.
  Size2 stride = 0;  ///< 0 means the kernel's size.
  Size2 padding = 0;

  bool is_adaptive() const { return kernel == Size2(0); }
  /// The stride, where it is 0 the kernel's size.
  Size2 step() const {
    return {stride.height == 0 ? kernel.height : stride.height,
            stride.width == 0 ? kernel.width : stride.width};
  }
};

enum class PadMode : std::uint8_t { zero, reflect };
struct Pad2d {
  std::int64_t left = 0, right = 0, top = 0, bottom = 0;
};

}  // namespace millrace
