#pragma once

#include <cstdint>

/// Sums and maxima over the threads of a warp or a block, in a fixed order; every thread gets the result. All
/// threads of the block take part, in full warps.
namespace millrace::cuda {

inline constexpr unsigned kAllLanes = 0xffffffffu;

struct SumOf {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct MaxOf {  // not a number wins
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return (a > b) | (a != a) ? a : b;
  }
};

template <typename T, typename Combine>
__device__ T warp_combine(T value, Combine combine) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value = combine(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

/// `neutral` changes nothing: 0 for a sum.
template <typename T, typename Combine>
__device__ T block_combine(T value, T neutral, Combine combine) {
  __shared__ T of_warp[32];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  value = warp_combine(value, combine);
  if (lane == 0) {
    of_warp[warp] = value;
  }
  __syncthreads();
  value = warp_combine(lane < blockDim.x / 32 ? of_warp[lane] : neutral, combine);
  __syncthreads();  // before of_warp is used again
  return value;
}

template <typename T>
__device__ T warp_sum(T value) {
  return warp_combine(value, SumOf{});
}
template <typename T>
__device__ T warp_max(T value) {
  return warp_combine(value, MaxOf{});
}
template <typename T>
__device__ T block_sum(T value) {
  return block_combine(value, T{0}, SumOf{});
}
/// `lowest` is not above any value.
template <typename T>
__device__ T block_max(T value, T lowest) {
  return block_combine(value, lowest, MaxOf{});
}

}  // namespace millrace::cuda
