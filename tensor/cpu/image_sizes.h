#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace millrace::cpu {

/// The sizes of an image tensor, read once: `Tensor::size` checks each time.
struct ImageSizes {
  std::int64_t images, channels, height, width;
};
inline ImageSizes image_sizes(const Tensor& x) {
  const Shape& shape = x.shape();
  return {shape[0], shape[1], shape[2], shape[3]};
}

}  // namespace millrace::cpu
