#include "tensor/cuda/launch.cuh"
#include "tensor/kernels/pixels.h"

namespace millrace::cuda {
namespace {

/// Fused by hand, as the compiler fuses the CPU's: the same bits. A thread reads N bytes and writes N
/// numbers.
template <typename T, int N>
__global__ void normalize(const std::uint8_t* __restrict__ pixels, const float* __restrict__ scale,
                          const float* __restrict__ bias, std::int64_t packs, std::int64_t first,
                          int channels, T* __restrict__ out) {
  for (const std::int64_t i : grid_range(packs)) {
    const auto bytes = load_pack<std::uint8_t, N>(pixels + i * N);
    int channel = static_cast<int>((first + i * N) % channels);
    Pack<T, N> numbers;
    for (int k = 0; k < N; ++k) {
      numbers.at[k] = from_float<T>(fmaf(static_cast<float>(bytes.at[k]), scale[channel], bias[channel]));
      channel = channel + 1 == channels ? 0 : channel + 1;
    }
    store_pack(out + i * N, numbers);
  }
}

}  // namespace

const KernelRow kNormalizePixels("normalize_pixels", cuda::normalize_pixels,
                                 {{"pixels", takes::kU8, Order::channels_last},
                                  takes::vector("scale"),
                                  takes::vector("bias"),
                                  takes::image("out")});
void normalize_pixels(const Tensor& pixels, const Tensor& scale, const Tensor& bias, Tensor& out) {
  kNormalizePixels.check({&pixels, &scale, &bias, &out});
  const cudaStream_t stream = stream_of(out);
  const std::int64_t count = pixels.numel();
  const int channels = static_cast<int>(pixels.size(1));
  const auto* from = pixels.data<std::uint8_t>();
  const float *factor = scale.data<float>(), *offset = bias.data<float>();
  visit_activations(out.dtype(), "normalize_pixels", [&]<typename T>() {
    constexpr int kWidth = kPack<T>;
    auto* to = data_of<T>(out);
    const bool wide = is_aligned(from, kWidth) && is_aligned(to);
    const std::int64_t packs = wide ? count / kWidth : 0, done = packs * kWidth;
    launch("normalize_pixels", normalize<T, kWidth>, grid_for(packs), stream, from, factor, offset, packs,
           std::int64_t{0}, channels, to);
    launch("normalize_pixels", normalize<T, 1>, grid_for(count - done), stream, from + done, factor, offset,
           count - done, done, channels, to + done);
  });
}

}  // namespace millrace::cuda
