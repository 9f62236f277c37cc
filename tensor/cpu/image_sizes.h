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

/// Where each image of a tensor starts, channels-last.
template <typename T>
struct Images {
  T* first;
  std::int64_t size;  // of one
  T* image(std::int64_t n) const { return first + n * size; }
};
template <typename T>
Images<T> images_of(const Tensor& x) {
  const ImageSizes s = image_sizes(x);
  return {x.data<T>(), s.channels * s.height * s.width};
}

}  // namespace millrace::cpu
