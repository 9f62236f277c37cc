#pragma once

#include "tensor/cuda/block.cuh"
#include "tensor/cuda/launch.cuh"

/// Rows of classes, one to a block at a time: what softmax and cross entropy share. Sums run in f32, each
/// over a few numbers a thread and then in a tree.
namespace millrace::cuda {

/// A warp a row, or eight where rows are long.
inline Grid grid_of_rows(const Tensor& x) {
  constexpr std::int64_t kMostBlocks = 132 * 32;
  return {.blocks = x.numel() == 0 ? 0 : std::min(x.size(0), kMostBlocks),
          .threads = x.size(1) <= 1024 ? 32 : 256};
}

template <typename F>
__device__ void for_each_row(std::int64_t rows, F&& f) {
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    f(row);
  }
}

template <typename F>
__device__ void for_each_column(std::int64_t columns, F&& f) {
  for (std::int64_t c = threadIdx.x; c < columns; c += blockDim.x) {
    f(c);
  }
}

template <typename F>
__device__ float sum_of(std::int64_t columns, F&& f) {
  float sum = 0;
  for_each_column(columns, [&](std::int64_t c) { sum += f(c); });
  return block_sum(sum);
}

template <typename T>
__device__ float highest(const T* x, std::int64_t columns) {
  float high = -INFINITY;
  for_each_column(columns, [&](std::int64_t c) { high = fmaxf(high, to_float(x[c])); });
  return block_max(high, -INFINITY);
}

struct LogSoftmax {
  float high, log_sum;
  __device__ float operator()(float x) const { return x - high - log_sum; }
};
template <typename T>
__device__ LogSoftmax log_softmax_of(const T* x, std::int64_t columns) {
  const float high = highest(x, columns);
  return {high, logf(sum_of(columns, [&](std::int64_t c) { return expf(to_float(x[c]) - high); }))};
}

}  // namespace millrace::cuda
