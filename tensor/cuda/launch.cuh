#pragma once

#include <algorithm>
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <string_view>
#include <type_traits>

#include "tensor/cuda/arguments.h"
#include "tensor/cuda/runtime/runtime.h"

/// What every kernel file uses: launching, loops over the grid, the types of elements and how they are
/// computed with.
namespace millrace::cuda {

/// Blocks in x and y, and threads of a block (a multiple of 32).
struct Grid {
  std::int64_t blocks = 1;
  std::int64_t rows = 1;
  int threads = 256;
};

/// Enough blocks for `elements` in a loop over the grid, at most two waves on 132 processors.
inline Grid grid_for(std::int64_t elements, int threads = 256) {
  constexpr std::int64_t kMostThreads = 2 * 132 * 2048;
  return {.blocks = std::min((elements + threads - 1) / threads, kMostThreads / threads), .threads = threads};
}

/// Enqueues `kernel(arguments...)`; nothing where the grid has no blocks. The stream's device is the thread's
/// current one: see `stream_of`. @throws MachineError that names `operation`.
template <typename... Parameters, typename... Arguments>
void launch(std::string_view operation, void (*kernel)(Parameters...), const Grid& grid, cudaStream_t stream,
            Arguments&&... arguments) {
  if (grid.blocks == 0 || grid.rows == 0) {
    return;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.rows));
  config.blockDim = dim3(static_cast<unsigned>(grid.threads));
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), operation);
}

/// The numbers in [0, size) that fall to this thread: `for (std::int64_t i : grid_range(n))`.
class GridRange {
 public:
  struct End {
    std::int64_t size;
  };
  struct Iterator {
    std::int64_t i;
    __device__ std::int64_t operator*() const { return i; }
    __device__ void operator++() { i += static_cast<std::int64_t>(gridDim.x) * blockDim.x; }
    __device__ bool operator!=(End end) const { return i < end.size; }
  };
  __device__ explicit GridRange(std::int64_t size) : size_(size) {}
  __device__ Iterator begin() const {
    return {static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x};
  }
  __device__ End end() const { return {size_}; }

 private:
  std::int64_t size_;
};

__device__ inline GridRange grid_range(std::int64_t size) { return GridRange(size); }

template <typename T>
inline constexpr bool is_half_type = std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>;

/// What an element is computed in: f32 for the half types, itself otherwise.
template <typename T>
using Scalar = std::conditional_t<is_half_type<T>, float, T>;

template <typename T>
__host__ __device__ inline Scalar<T> to_float(T x) {
  if constexpr (std::is_same_v<T, __half>) {
    return __half2float(x);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __bfloat162float(x);
  } else {
    return x;
  }
}

/// Rounds to nearest even; what is too large for f16 becomes infinite.
template <typename T>
__host__ __device__ inline T from_float(Scalar<T> x) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(x);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(x);
  } else {
    return x;
  }
}

/// N neighbours, loaded and stored in one go.
template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T at[N];
};
/// Elements in 16 bytes.
template <typename T>
inline constexpr int kPack = 16 / sizeof(T);

template <typename T, int N>
__device__ inline Pack<T, N> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}
template <typename T, int N>
__device__ inline void store_pack(T* to, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

/// Whether `data` may be read in units of `bytes`.
inline bool is_aligned(const void* data, std::size_t bytes = 16) {
  return reinterpret_cast<std::uintptr_t>(data) % bytes == 0;
}

/// The first element, in the device's type for it.
template <typename T>
T* data_of(const Tensor& tensor) {
  return reinterpret_cast<T*>(tensor.raw());
}

/// Calls `f.template operator()<T>()` with the device's type of a floating `dtype`. @throws InputError naming
/// `operation` on any other.
template <typename F>
void visit_floats(DType dtype, std::string_view operation, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::f64:
      return f.template operator()<double>();
    case DType::f16:
      return f.template operator()<__half>();
    case DType::bf16:
      return f.template operator()<__nv_bfloat16>();
    default:
      throw InputError("{}: got type {}, expected a floating type: convert with to()", operation, dtype);
  }
}

/// The types of activations: f32, bf16 and f16.
template <typename F>
void visit_activations(DType dtype, std::string_view operation, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::f16:
      return f.template operator()<__half>();
    case DType::bf16:
      return f.template operator()<__nv_bfloat16>();
    default:
      throw InputError("{}: got type {}, expected f32, bf16 or f16 (convert with to())", operation, dtype);
  }
}

/// All types.
template <typename F>
void visit_types(DType dtype, F&& f) {
  switch (dtype) {
    case DType::u8:
      return f.template operator()<std::uint8_t>();
    case DType::i32:
      return f.template operator()<std::int32_t>();
    case DType::i64:
      return f.template operator()<std::int64_t>();
    default:
      return visit_floats(dtype, "visit", f);
  }
}

}  // namespace millrace::cuda
