#pragma once

#include <cstdint>

#include "tensor/cpu/channels.h"
#include "tensor/cpu/image_sizes.h"

namespace millrace::cpu {

/// What a max pooling of 2x2 windows reads.
inline ImageSizes unpooled_sizes(const Tensor& pooled) {
  ImageSizes sizes = image_sizes(pooled);
  sizes.height *= 2;
  sizes.width *= 2;
  return sizes;
}

/// The gradient of what a max pooling of 2x2 windows read, made of that of its result an image at a time:
/// unless images are large it is read from the cache.
template <typename T>
class Unpooled {
 public:
  /// `grad` and `index`: of the pooling's result, channels-last.
  Unpooled(const Tensor& grad, const Tensor& index)
      : sizes_(image_sizes(grad)),
        grad_(images_of<T>(grad)),
        index_(images_of<std::uint8_t>(index)),
        made_(empty({4 * grad_.size}, {.dtype = grad.dtype()})) {}

  Unpooled(Unpooled&&) = default;  // a copy would write to the same place

  /// Holds until the next is asked for.
  const T* image(std::int64_t n) {
    if (n != image_) {
      make(grad_.image(n), index_.image(n));
      image_ = n;
    }
    return made_.data<T>();
  }

 private:
  void make(const T* grad, const std::uint8_t* index) {
    using namespace channels;
    const std::int64_t pixel = sizes_.channels, row = 2 * sizes_.width * pixel;
    T* to = made_.data<T>();
    for (std::int64_t h = 0; h < sizes_.height; ++h, to += row) {
      for (std::int64_t w = 0; w < sizes_.width; ++w, to += 2 * pixel, grad += pixel, index += pixel) {
        for_each_group(pixel, [&](std::int64_t c, auto lanes) {
          const Vec g = load(grad + c, lanes);
          const IntVec winner = load(index + c, lanes);
          const auto part = [&](std::int32_t place) { return winner == broadcast(place) ? g : Vec{}; };
          store(to + c, part(0), lanes);
          store(to + pixel + c, part(1), lanes);
          store(to + row + c, part(2), lanes);
          store(to + row + pixel + c, part(3), lanes);
        });
      }
    }
  }

  ImageSizes sizes_;  // of the result
  Images<T> grad_;
  Images<std::uint8_t> index_;
  Tensor made_;
  std::int64_t image_ = -1;
};

}  // namespace millrace::cpu
