#pragma once

#include "tensor/cuda/elementwise.cuh"

/// What the image kernels share. Channels lie side by side in memory and travel in packs of 16 bytes.
namespace millrace::cuda {

/// Calls `f.template operator()<N>()`: N elements of T fill 16 bytes where `count` and the addresses allow
/// it, else N is 1. Undefined tensors do not matter.
template <typename T, typename F, typename... Tensors>
void visit_pack(std::int64_t count, F&& f, const Tensors&... tensors) {
  if (count % kPack<T> == 0 && (is_aligned(tensors.raw(), 32) && ...)) {
    f.template operator()<kPack<T>>();
  } else {
    f.template operator()<1>();
  }
}

/// The packs of an image tensor, numbered in the order of memory; fewer than 2^31.
struct Places {
  int packs = 0;  ///< Of one pixel.
  int count = 0;
  Divider by_packs, by_width, by_height;

  struct Place {
    int pack, x, y, image;
  };
  __device__ Place operator()(std::int64_t i) const {
    auto pack = static_cast<std::uint32_t>(i);
    std::uint32_t x = by_packs.divide(pack), y = by_width.divide(x);
    const std::uint32_t image = by_height.divide(y);
    return {static_cast<int>(pack), static_cast<int>(x), static_cast<int>(y), static_cast<int>(image)};
  }

  /// @throws InputError when there are too many.
  static Places of(const char* operation, const Tensor& image, int pack) {
    const Shape& shape = image.shape();
    const std::int64_t count = image.numel() / pack;
    if (count >= std::int64_t{1} << 31) {
      throw InputError("{}: got images {}, expected fewer than 2^31 places on CUDA; use smaller batches",
                       operation, shape);
    }
    if (count == 0) {
      return {};
    }
    const auto divider = [](std::int64_t size) { return Divider(static_cast<std::uint32_t>(size)); };
    return {static_cast<int>(shape[1] / pack), static_cast<int>(count), divider(shape[1] / pack),
            divider(shape[3]), divider(shape[2])};
  }
};

}  // namespace millrace::cuda
