#include "tensor/cuda/pool/pool_axis.cuh"
#include "tensor/kernels/pool.h"

namespace millrace::cuda {
namespace {

__device__ float share_of(const Window& rows, const Window& columns) {
  return 1.0f / static_cast<float>(std::int64_t{rows.extent} * columns.extent);
}

template <int N, typename T>
__global__ void forward(const T* __restrict__ x, Places outputs, PoolAxis down, PoolAxis across,
                        T* __restrict__ out) {
  const std::int64_t channels = std::int64_t{outputs.packs} * N;
  for (const std::int64_t i : grid_range(outputs.count)) {
    const auto at = outputs(i);
    const Window rows = down.window(at.y), columns = across.window(at.x);
    const T* const image = x + std::int64_t{at.image} * down.in * across.in * channels + at.pack * N;
    float sum[N] = {};
    for (int y = rows.begin; y < rows.end; ++y) {
      float row[N] = {};  // sums of rows first: closer than one long sum
      for (int w = columns.begin; w < columns.end; ++w) {
        const auto pack = load_pack<T, N>(image + (std::int64_t{y} * across.in + w) * channels);
        for (int k = 0; k < N; ++k) {
          row[k] += to_float(pack.at[k]);
        }
      }
      for (int k = 0; k < N; ++k) {
        sum[k] += row[k];
      }
    }
    const float share = share_of(rows, columns);
    Pack<T, N> result;
    for (int k = 0; k < N; ++k) {
      result.at[k] = from_float<T>(sum[k] * share);
    }
    store_pack(out + i * N, result);
  }
}

/// Each input gathers from the windows that hold it, so it is written once.
template <int N, typename T>
__global__ void backward(const T* __restrict__ grad, Places inputs, PoolAxis down, PoolAxis across,
                         T* __restrict__ grad_x) {
  for (const std::int64_t i : grid_range(inputs.count)) {
    const auto at = inputs(i);
    const Readers rows = down.readers(at.y), columns = across.readers(at.x);
    float sum[N] = {};
    for (int oh = rows.begin; oh < rows.end; ++oh) {
      for (int ow = columns.begin; ow < columns.end; ++ow) {
        const float share = share_of(down.window(oh), across.window(ow));
        const std::int64_t pixel = (std::int64_t{at.image} * down.out + oh) * across.out + ow;
        const auto pack = load_pack<T, N>(grad + (pixel * inputs.packs + at.pack) * N);
        for (int k = 0; k < N; ++k) {
          sum[k] += to_float(pack.at[k]) * share;
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

const KernelRow kAvgPool2dForward("avg_pool2d_forward", cuda::avg_pool2d_forward,
                                  {takes::image("x"), takes::image_like("x", "out")});
void avg_pool2d_forward(const Tensor& x, const Pool2dOptions& params, Tensor& out) {
  kAvgPool2dForward.check({&x, &out});
  const PoolAxis down = PoolAxis::of("avg_pool2d", 2, x.shape(), out.shape(), params);
  const PoolAxis across = PoolAxis::of("avg_pool2d", 3, x.shape(), out.shape(), params);
  visit_activations(x.dtype(), "avg_pool2d", [&]<typename T>() {
    visit_pack<T>(
        x.size(1),
        [&]<int N>() {
          const Places outputs = Places::of("avg_pool2d", out, N);
          launch("avg_pool2d", forward<N, T>, grid_for(outputs.count), stream_of(out), data_of<T>(x), outputs,
                 down, across, data_of<T>(out));
        },
        x, out);
  });
}

const KernelRow kAvgPool2dBackward("avg_pool2d_backward", cuda::avg_pool2d_backward,
                                   {takes::image("grad"), takes::image_like("grad", "grad_x")});
void avg_pool2d_backward(const Tensor& grad, const Pool2dOptions& params, Tensor& grad_x) {
  kAvgPool2dBackward.check({&grad, &grad_x});
  const PoolAxis down = PoolAxis::of("avg_pool2d", 2, grad_x.shape(), grad.shape(), params);
  const PoolAxis across = PoolAxis::of("avg_pool2d", 3, grad_x.shape(), grad.shape(), params);
  visit_activations(grad.dtype(), "avg_pool2d", [&]<typename T>() {
    visit_pack<T>(
        grad.size(1),
        [&]<int N>() {
          const Places inputs = Places::of("avg_pool2d", grad_x, N);
          launch("avg_pool2d backward", backward<N, T>, grid_for(inputs.count), stream_of(grad_x),
                 data_of<T>(grad), inputs, down, across, data_of<T>(grad_x));
        },
        grad, grad_x);
  });
}

}  // namespace millrace::cuda
