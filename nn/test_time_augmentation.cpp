#include "nn/test_time_augmentation.h"

namespace millrace::nn {
namespace {

Variable mirrored(const Variable& images) {
  const auto width = static_cast<double>(images.size(3));
  const Tensor from_right = arange(width - 1, -1, -1, {.dtype = DType::i64, .device = images.device()});
  return index_select(images, 3, from_right);
}

/// Of an image and its mirror image, half each.
Variable both_ways(Module& net, const Variable& images) {
  return (to(net(images), DType::f32) + to(net(mirrored(images)), DType::f32)) * 0.5;
}

/// The window of the images' size at (place, place).
Variable window(const Variable& padded, std::int64_t place, const Variable& images) {
  const Variable rows = narrow(padded, 2, place, images.size(2));
  return contiguous(narrow(rows, 3, place, images.size(3)), MemoryFormat::channels_last);
}

}  // namespace

Variable average_over_augmentations(Module& net, const Variable& images) {
  const Variable padded = pad2d(images, {.left = 1, .right = 1, .top = 1, .bottom = 1}, PadMode::reflect);
  const Variable moved =
      both_ways(net, window(padded, 0, images)) + both_ways(net, window(padded, 2, images));
  return both_ways(net, images) * 0.5 + moved * 0.25;
}

}  // namespace millrace::nn
