#include <algorithm>
#include <bit>
#include <cassert>

#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/tree_sum.h"

namespace millrace::cuda {
namespace {

template <int kMost>
struct Places {
  const std::byte* addends[kMost];
  std::byte* outs[kMost];
};

template <typename T, int N>
__device__ Pack<T, N> operator+(const Pack<T, N>& a, const Pack<T, N>& b) {
  Pack<T, N> sum;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    sum.at[k] = a.at[k] + b.at[k];
  }
  return sum;
}

template <typename P, int kMost>
__device__ P load(const Places<kMost>& places, int addend, std::int64_t i) {
  return reinterpret_cast<const P*>(places.addends[addend])[i];
}

/// Of addends [kFirst, kFirst + kCount), a power of two.
template <typename P, int kFirst, int kCount, int kMost>
__device__ P sum_run(const Places<kMost>& places, std::int64_t i) {
  if constexpr (kCount == 1) {
    return load<P>(places, kFirst, i);
  } else {
    constexpr int kHalf = kCount / 2;
    return sum_run<P, kFirst, kHalf>(places, i) + sum_run<P, kFirst + kHalf, kHalf>(places, i);
  }
}

/// Of any number of addends: counted in as in a binary counter, where a carry is a sum, and what the counter
/// holds is added from its low end.
template <typename P, int kMost>
__device__ P sum_counted(const Places<kMost>& places, int count, std::int64_t i) {
  P held[9]{};  // held[l]: the sum of 2^l addends
  for (int a = 0; a < count; ++a) {
    P sum = load<P>(places, a, i);
    int level = 0;
    for (; (a >> level & 1) != 0; ++level) {
      sum = held[level] + sum;
    }
    held[level] = sum;
  }
  int level = 0;
  while ((count >> level & 1) == 0) {
    ++level;
  }
  P sum = held[level];
  for (++level; count >> level != 0; ++level) {
    if ((count >> level & 1) != 0) {
      sum = held[level] + sum;
    }
  }
  return sum;
}

/// `kCount` addends; 0: `addends` of them. A thread writes a place after it has read it from all.
template <typename P, int kCount, int kMost>
__global__ void tree_sum_kernel(const Places<kMost> places, int addends, int outs, std::int64_t size) {
  for (const std::int64_t i : grid_range(size)) {
    P sum;
    if constexpr (kCount > 0) {
      sum = sum_run<P, 0, kCount>(places, i);
    } else {
      sum = sum_counted<P>(places, addends, i);
    }
#pragma unroll
    for (int out = 0; out < (kCount > 0 ? kCount : outs); ++out) {
      if (out < outs) {
        reinterpret_cast<P*>(places.outs[out])[i] = sum;
      }
    }
  }
}

template <typename P, int kCount, int kMost>
void launch_sum(std::span<const std::byte* const> addends, std::span<std::byte* const> outs,
                std::int64_t first, std::int64_t size, cudaStream_t stream) {
  Places<kMost> places{};
  const auto offset = first * static_cast<std::int64_t>(sizeof(P));
  std::ranges::transform(addends, places.addends, [&](const std::byte* addend) { return addend + offset; });
  std::ranges::transform(outs, places.outs, [&](std::byte* out) { return out + offset; });
  launch("tree_sum", tree_sum_kernel<P, kCount, kMost>, grid_for(size), stream, places,
         static_cast<int>(addends.size()), static_cast<int>(outs.size()), size);
}

/// Elements [first, first + size), in units of P.
template <typename P>
void sum_part(std::span<const std::byte* const> addends, std::span<std::byte* const> outs, std::int64_t first,
              std::int64_t size, cudaStream_t stream) {
  const bool few = outs.size() <= addends.size();
  if (few && addends.size() == 2) {
    launch_sum<P, 2, 2>(addends, outs, first, size, stream);
  } else if (few && addends.size() == 4) {
    launch_sum<P, 4, 4>(addends, outs, first, size, stream);
  } else if (few && addends.size() == 8) {
    launch_sum<P, 8, 8>(addends, outs, first, size, stream);
  } else {
    launch_sum<P, 0, static_cast<int>(kMostAddends)>(addends, outs, first, size, stream);
  }
}

template <typename T>
void sum_all(std::span<const std::byte* const> addends, std::span<std::byte* const> outs, std::int64_t count,
             cudaStream_t stream) {
  const auto aligned = [](const std::byte* place) { return is_aligned(place); };
  const bool packed = std::ranges::all_of(addends, aligned) && std::ranges::all_of(outs, aligned);
  const std::int64_t packs = packed ? count / kPack<T> : 0;
  sum_part<Pack<T, kPack<T>>>(addends, outs, 0, packs, stream);
  sum_part<T>(addends, outs, packs * kPack<T>, count - packs * kPack<T>, stream);
}

}  // namespace

void tree_sum(std::span<const std::byte* const> addends, std::span<std::byte* const> outs, std::int64_t count,
              DType dtype, const Stream& stream) {
  assert(!addends.empty() && addends.size() <= kMostAddends && outs.size() <= kMostAddends);
  const DeviceGuard device(stream.device().index);
  if (dtype == DType::f32) {
    sum_all<float>(addends, outs, count, native(stream));
  } else {
    sum_all<double>(addends, outs, count, native(stream));
  }
}

}  // namespace millrace::cuda
