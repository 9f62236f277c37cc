#include "tensor/cpu/channels.h"
#include "tensor/cpu/pool_axis.h"
#include "tensor/cpu/visit_float.h"
#include "tensor/kernels.h"

namespace millrace::cpu {

using namespace channels;

namespace {

float share_of(const PoolAxis& down, const PoolAxis& across, std::int64_t oh, std::int64_t ow) {
  return 1.0f / static_cast<float>(down.extent[static_cast<std::size_t>(oh)] *
                                   across.extent[static_cast<std::size_t>(ow)]);
}

template <typename T>
void forward(const Tensor& x, const Pool2dParams& params, Tensor& out) {
  const PoolAxis down = PoolAxis::height(x.shape(), out.shape(), params);
  const PoolAxis across = PoolAxis::width(x.shape(), out.shape(), params);
  const std::int64_t channels = x.size(1);
  const std::int64_t row_stride = x.size(3) * channels;
  const T* image = x.data<T>();
  T* mean = out.data<T>();
  for (std::int64_t n = 0; n < x.size(0); ++n, image += x.size(2) * row_stride) {
    for (std::int64_t oh = 0; oh < out.size(2); ++oh) {
      const Span rows = down.window[static_cast<std::size_t>(oh)];
      for (std::int64_t ow = 0; ow < out.size(3); ++ow, mean += channels) {
        const Span columns = across.window[static_cast<std::size_t>(ow)];
        const Vec share = broadcast(share_of(down, across, oh, ow));
        for_each_group(channels, [&](std::int64_t c, auto lanes) {
          Vec sum{};
          for (std::int64_t y = rows.begin; y < rows.end; ++y) {
            Vec row{};  // sums of rows first: closer than one long sum
            for (std::int64_t w = columns.begin; w < columns.end; ++w) {
              row += load(image + y * row_stride + w * channels + c, lanes);
            }
            sum += row;
          }
          store(mean + c, sum * share, lanes);
        });
      }
    }
  }
}

/// Each input gathers from the windows that hold it, so it is written once.
template <typename T>
void backward(const Tensor& grad, const Pool2dParams& params, Tensor& grad_x) {
  const PoolAxis down = PoolAxis::height(grad_x.shape(), grad.shape(), params);
  const PoolAxis across = PoolAxis::width(grad_x.shape(), grad.shape(), params);
  const std::int64_t channels = grad.size(1);
  const std::int64_t row_stride = grad.size(3) * channels;
  const T* image = grad.data<T>();
  T* out = grad_x.data<T>();
  for (std::int64_t n = 0; n < grad.size(0); ++n, image += grad.size(2) * row_stride) {
    for (std::int64_t y = 0; y < grad_x.size(2); ++y) {
      const Span rows = down.readers[static_cast<std::size_t>(y)];
      for (std::int64_t x = 0; x < grad_x.size(3); ++x, out += channels) {
        const Span columns = across.readers[static_cast<std::size_t>(x)];
        for_each_group(channels, [&](std::int64_t c, auto lanes) {
          Vec sum{};
          for (std::int64_t oh = rows.begin; oh < rows.end; ++oh) {
            for (std::int64_t ow = columns.begin; ow < columns.end; ++ow) {
              sum += load(image + oh * row_stride + ow * channels + c, lanes) *
                     broadcast(share_of(down, across, oh, ow));
            }
          }
          store(out + c, sum, lanes);
        });
      }
    }
  }
}

}  // namespace

void avg_pool2d_forward(const Tensor& x, const Pool2dParams& params, Tensor& out) {
  visit_float(x.dtype(), "avg_pool2d", [&]<typename T>() { forward<T>(x, params, out); });
}

void avg_pool2d_backward(const Tensor& grad, const Pool2dParams& params, Tensor& grad_x) {
  visit_float(grad.dtype(), "avg_pool2d", [&]<typename T>() { backward<T>(grad, params, grad_x); });
}

}  // namespace millrace::cpu
