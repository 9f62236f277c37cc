#include "base/philox.h"
#include "tensor/cuda/elementwise.cuh"
#include "tensor/kernels/random.h"

namespace millrace::cuda {
namespace {

/// Four random words serve four neighbours in row-major order: see tensor/cpu/elementwise/dropout.cpp.
struct Mask {
  std::uint64_t key;
  float threshold, scale;

  __device__ std::array<std::uint32_t, 4> words(std::uint64_t block) const {
    return philox({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), 0, 0},
                  {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)});
  }
  template <typename T>
  __device__ T apply(T x, std::uint32_t word) const {
    return from_float<T>(to_unit_float(word) >= threshold ? to_float(x) * scale : 0.0f);
  }
};

/// Row-major memory: a thread draws once for four elements.
template <typename T>
__global__ void drop_row_major(const T* __restrict__ x, std::int64_t count, Mask mask, std::uint64_t first,
                               bool whole, std::int64_t blocks, T* __restrict__ out) {
  for (const std::int64_t block : grid_range(blocks)) {
    const std::uint64_t number = first / 4 + static_cast<std::uint64_t>(block);
    const auto words = mask.words(number);
    const auto begin =
        static_cast<std::int64_t>(number * 4 - first);  // negative where the first block is cut
    if (whole && begin + 4 <= count) {
      auto pack = load_pack<T, 4>(x + begin);
      for (int k = 0; k < 4; ++k) {
        pack.at[k] = mask.apply(pack.at[k], words[static_cast<std::size_t>(k)]);
      }
      store_pack(out + begin, pack);
      continue;
    }
    for (int k = 0; k < 4; ++k) {
      const std::int64_t i = begin + k;
      if (i >= 0 && i < count) {
        out[i] = mask.apply(x[i], words[static_cast<std::size_t>(k)]);
      }
    }
  }
}

/// Any dense memory; `layout` has its strides and those of row-major order.
template <typename T>
__global__ void drop(const T* __restrict__ x, Layout<2> layout, Mask mask, std::uint64_t first,
                     T* __restrict__ out) {
  for (const std::int64_t i : grid_range(layout.count)) {
    const auto offsets = layout.offsets(i);
    const std::uint64_t place = first + static_cast<std::uint64_t>(offsets.of[1]);
    out[offsets.of[0]] = mask.apply(x[offsets.of[0]], mask.words(place / 4)[place % 4]);
  }
}

}  // namespace

const KernelRow kDropout("dropout", cuda::dropout,
                         {{"x", takes::kActivation, Order::dense},
                          {"out", takes::kActivation, Order::dense, "x"}});
void dropout(const Tensor& x, double p, std::uint64_t key, std::uint64_t first, Tensor& out) {
  kDropout.check({&x, &out});
  if (x.numel() == 0) {
    return;
  }
  const Mask mask{key, static_cast<float>(p), p < 1 ? static_cast<float>(1 / (1 - p)) : 0.0f};
  visit_activations(x.dtype(), "dropout", [&]<typename T>() {
    const T* const from = data_of<T>(x);
    T* const to = data_of<T>(out);
    if (x.is_contiguous()) {
      const bool whole = first % 4 == 0 && is_aligned(from) && is_aligned(to);
      const auto cut = static_cast<std::int64_t>(first % 4);
      const std::int64_t blocks = (cut + x.numel() + 3) / 4;
      launch("dropout", drop_row_major<T>, grid_for(blocks), stream_of(out), from, x.numel(), mask, first,
             whole, blocks, to);
      return;
    }
    const Strides row_major = dense_strides(x.shape());
    const Nest<2> nest(x.shape(), {&x.strides(), &row_major});
    for_each_part<2>(nest.dims(), [&](const Layout<2>& layout, const auto& start) {
      launch("dropout", drop<T>, grid_for(layout.count), stream_of(out), from + start[0], layout, mask,
             first + static_cast<std::uint64_t>(start[1]), to + start[0]);
    });
  });
}

}  // namespace millrace::cuda
