#include <limits>

#include "tensor/cuda/pool/pool_axis.cuh"
#include "tensor/kernels/pool.h"
#include "tensor/kernels/visit_size.h"

namespace millrace::cuda {
namespace {

/// The place in the window, row by row; it wraps where the CPU's does.
__device__ std::int32_t place_in(const Window& rows, const Window& columns, int y, int x) {
  return static_cast<std::int32_t>(static_cast<unsigned>(y - rows.origin) *
                                       static_cast<unsigned>(columns.extent) +
                                   static_cast<unsigned>(x - columns.origin));
}

/// The first of equal maxima wins and the last NaN, as on the CPU.
template <int N, typename T, typename Index>
__global__ void forward(const T* __restrict__ x, Places outputs, PoolAxis down, PoolAxis across,
                        T* __restrict__ out, Index* __restrict__ index) {
  const std::int64_t channels = std::int64_t{outputs.packs} * N;
  for (const std::int64_t i : grid_range(outputs.count)) {
    const auto at = outputs(i);
    const Window rows = down.window(at.y), columns = across.window(at.x);
    const T* const image = x + std::int64_t{at.image} * down.in * across.in * channels + at.pack * N;
    float best[N];
    std::int32_t winner[N];
    for (int k = 0; k < N; ++k) {
      best[k] = -INFINITY;
      winner[k] = place_in(rows, columns, rows.begin, columns.begin);
    }
    for (int y = rows.begin; y < rows.end; ++y) {
      for (int w = columns.begin; w < columns.end; ++w) {
        const auto pack = load_pack<T, N>(image + (std::int64_t{y} * across.in + w) * channels);
        const std::int32_t place = place_in(rows, columns, y, w);
        for (int k = 0; k < N; ++k) {
          const float value = to_float(pack.at[k]);
          const bool take = value > best[k] || value != value;
          best[k] = take ? value : best[k];
          winner[k] = take ? place : winner[k];
        }
      }
    }
    Pack<T, N> values;
    Pack<Index, N> winners;
    for (int k = 0; k < N; ++k) {
      values.at[k] = from_float<T>(best[k]);
      winners.at[k] = static_cast<Index>(winner[k]);
    }
    store_pack(out + i * N, values);
    store_pack(index + i * N, winners);
  }
}

/// Each input gathers from the windows that hold it, so it is written once.
template <int N, typename T, typename Index>
__global__ void backward(const T* __restrict__ grad, const Index* __restrict__ index, Places inputs,
                         PoolAxis down, PoolAxis across, T* __restrict__ grad_x) {
  for (const std::int64_t i : grid_range(inputs.count)) {
    const auto at = inputs(i);
    const Readers rows = down.readers(at.y), columns = across.readers(at.x);
    float sum[N] = {};
    for (int oh = rows.begin; oh < rows.end; ++oh) {
      for (int ow = columns.begin; ow < columns.end; ++ow) {
        const std::int32_t own = place_in(down.window(oh), across.window(ow), at.y, at.x);
        const std::int64_t pixel = (std::int64_t{at.image} * down.out + oh) * across.out + ow;
        const std::int64_t reader = (pixel * inputs.packs + at.pack) * N;
        const auto winners = load_pack<Index, N>(index + reader);
        const auto values = load_pack<T, N>(grad + reader);
        for (int k = 0; k < N; ++k) {
          sum[k] += winners.at[k] == own ? to_float(values.at[k]) : 0.0f;
        }
      }
    }
    Pack<T, N> result;
    for (int k = 0; k < N; ++k) {
      result.at[k] = from_float<T>(sum[k]);
    }
    store_pack(grad_x + i * N, result);
  }
}

}  // namespace

const KernelRow kMaxPool2dForward("max_pool2d_forward", cuda::max_pool2d_forward,
                                  {takes::image("x"),
                                   takes::image_like("x", "out"),
                                   {"index", takes::kPlace, Order::channels_last}});
void max_pool2d_forward(const Tensor& x, const Pool2dOptions& params, Tensor& out, Tensor& index) {
  kMaxPool2dForward.check({&x, &out, &index});
  const PoolAxis down = PoolAxis::of("max_pool2d", 2, x.shape(), out.shape(), params);
  const PoolAxis across = PoolAxis::of("max_pool2d", 3, x.shape(), out.shape(), params);
  visit_activations(x.dtype(), "max_pool2d", [&]<typename T>() {
    visit_place(index.dtype(), [&]<typename Index>() {
      visit_pack<T>(
          x.size(1),
          [&]<int N>() {
            const Places outputs = Places::of("max_pool2d", out, N);
            launch("max_pool2d", forward<N, T, Index>, grid_for(outputs.count), stream_of(out), data_of<T>(x),
                   outputs, down, across, data_of<T>(out), data_of<Index>(index));
          },
          x, out, index);
    });
  });
}

const KernelRow kMaxPool2dBackward("max_pool2d_backward", cuda::max_pool2d_backward,
                                   {takes::image("grad"),
                                    {"index", takes::kPlace, Order::channels_last},
                                    takes::image_like("grad", "grad_x")});
void max_pool2d_backward(const Tensor& grad, const Tensor& index, const Pool2dOptions& params,
                         Tensor& grad_x) {
  kMaxPool2dBackward.check({&grad, &index, &grad_x});
  const PoolAxis down = PoolAxis::of("max_pool2d", 2, grad_x.shape(), grad.shape(), params);
  const PoolAxis across = PoolAxis::of("max_pool2d", 3, grad_x.shape(), grad.shape(), params);
  visit_activations(grad.dtype(), "max_pool2d", [&]<typename T>() {
    visit_place(index.dtype(), [&]<typename Index>() {
      visit_pack<T>(
          grad.size(1),
          [&]<int N>() {
            const Places inputs = Places::of("max_pool2d", grad_x, N);
            launch("max_pool2d backward", backward<N, T, Index>, grid_for(inputs.count), stream_of(grad_x),
                   data_of<T>(grad), data_of<Index>(index), inputs, down, across, data_of<T>(grad_x));
          },
          grad, index, grad_x);
    });
  });
}

}  // namespace millrace::cuda
