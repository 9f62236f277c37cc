#include "tensor/cuda/conv/conv2d_bias.h"
#include "tensor/cuda/launch.cuh"

namespace millrace::cuda {
namespace {

template <typename T, int N>
__global__ void add_bias_kernel(const float* __restrict__ bias, std::int64_t packs, int packs_of_channels,
                                T* __restrict__ out) {
  for (const std::int64_t i : grid_range(packs)) {
    const float* const own = bias + i % packs_of_channels * N;
    Pack<T, N> pack = load_pack<T, N>(out + i * N);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      pack.at[k] = from_float<T>(to_float(pack.at[k]) + own[k]);
    }
    store_pack(out + i * N, pack);
  }
}

}  // namespace

const KernelRow kConv2dBias("conv2d_bias", cuda::add_bias, {takes::vector("bias"), takes::image("out")});
void add_bias(const Tensor& bias, Tensor& out) {
  kConv2dBias.check({&bias, &out});
  const cudaStream_t stream = stream_of(out);
  const std::int64_t channels = out.size(1);
  visit_activations(out.dtype(), "conv2d_forward", [&]<typename T>() {
    const auto run = [&]<int N>(std::integral_constant<int, N>) {
      const std::int64_t packs = out.numel() / N;
      launch("conv2d_forward: bias", add_bias_kernel<T, N>, grid_for(packs), stream, data_of<float>(bias),
             packs, static_cast<int>(channels / N), data_of<T>(out));
    };
    const bool whole = channels % kPack<T> == 0 && is_aligned(out.raw());
    whole ? run(std::integral_constant<int, kPack<T>>()) : run(std::integral_constant<int, 1>());
  });
}

}  // namespace millrace::cuda
