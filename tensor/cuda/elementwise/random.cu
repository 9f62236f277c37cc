#include <cmath>
#include <numbers>

#include "base/philox.h"
#include "tensor/cuda/launch.cuh"
#include "tensor/kernels/random.h"

namespace millrace::cuda {

namespace {

/// Uniform in [0, 1) in steps that T can hold, so that rounding never gives 1.
template <typename T>
__device__ float unit(std::uint32_t word) {
  constexpr int kBits = std::is_same_v<T, __nv_bfloat16> ? 8 : std::is_same_v<T, __half> ? 11 : 24;
  return static_cast<float>(word >> (32 - kBits)) * (1.0f / (1 << kBits));
}

template <typename T>
struct Uniform {
  __device__ void operator()(const std::array<std::uint32_t, 4>& words, float (&values)[4]) const {
    for (int i = 0; i < 4; ++i) {
      values[i] = unit<T>(words[i]);
    }
  }
};

struct Normal {  // Box and Muller
  __device__ void operator()(const std::array<std::uint32_t, 4>& words, float (&values)[4]) const {
    for (int pair = 0; pair < 4; pair += 2) {
      const float radius = std::sqrt(-2.0f * std::log(1.0f - to_unit_float(words[pair])));
      const float angle = 2.0f * std::numbers::pi_v<float> * to_unit_float(words[pair + 1]);
      values[pair] = radius * std::cos(angle);
      values[pair + 1] = radius * std::sin(angle);
    }
  }
};

/// One block of four words a thread; elements in memory order. The CPU's numbers: uniform ones to the bit,
/// normal ones to rounding.
template <typename T, typename Draw>
__global__ void draw_kernel(Draw draw, std::uint64_t seed, std::uint64_t first_block, std::int64_t count,
                            T* out) {
  const std::array<std::uint32_t, 2> key = {static_cast<std::uint32_t>(seed),
                                            static_cast<std::uint32_t>(seed >> 32)};
  for (std::int64_t i : grid_range((count + 3) / 4)) {
    const std::uint64_t block = first_block + static_cast<std::uint64_t>(i);
    float values[4];
    draw(philox({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), 0, 0}, key),
         values);
    for (int k = 0; k < 4 && i * 4 + k < count; ++k) {
      out[i * 4 + k] = from_float<T>(static_cast<Scalar<T>>(values[k]));
    }
  }
}

}  // namespace

const KernelRow kRandUniform("rand_uniform", cuda::rand_uniform, {{"out", takes::kFloat, Order::dense}});
void rand_uniform(std::uint64_t seed, std::uint64_t first_block, Tensor& out) {
  kRandUniform.check({&out});
  visit_floats(out.dtype(), "rand", [&]<typename T>() {
    launch("rand", draw_kernel<T, Uniform<T>>, grid_for((out.numel() + 3) / 4), stream_of(out), Uniform<T>{},
           seed, first_block, out.numel(), data_of<T>(out));
  });
}

const KernelRow kRandNormal("rand_normal", cuda::rand_normal, {{"out", takes::kFloat, Order::dense}});
void rand_normal(std::uint64_t seed, std::uint64_t first_block, Tensor& out) {
  kRandNormal.check({&out});
  visit_floats(out.dtype(), "randn", [&]<typename T>() {
    launch("randn", draw_kernel<T, Normal>, grid_for((out.numel() + 3) / 4), stream_of(out), Normal{}, seed,
           first_block, out.numel(), data_of<T>(out));
  });
}

}  // namespace millrace::cuda
