#include "tensor/cpu/channels.h"
#include "tensor/cpu/image_sizes.h"
#include "tensor/cpu/pool/pool_axis.h"
#include "tensor/cpu/visit_float.h"
#include "tensor/kernels/pool.h"

namespace millrace::cpu {

using namespace channels;

namespace {

float share_of(const PoolAxis& down, const PoolAxis& across, std::int64_t oh, std::int64_t ow) {
  return 1.0f / static_cast<float>(down.extent[static_cast<std::size_t>(oh)] *
                                   across.extent[static_cast<std::size_t>(ow)]);
}

template <typename T>
void forward(const Tensor& x, const Pool2dOptions& params, Tensor& out) {
  const auto [images, channels, height, width] = image_sizes(x);
  const ImageSizes result = image_sizes(out);
  const PoolAxis down = PoolAxis::height(x.shape(), out.shape(), params);
  const PoolAxis across = PoolAxis::width(x.shape(), out.shape(), params);
  const T* from = x.data<T>();
  T* to = out.data<T>();
  for (std::int64_t pixel = 0; pixel < images * result.height * result.width; ++pixel, to += channels) {
    const std::int64_t ow = pixel % result.width, oh = pixel / result.width % result.height;
    const Span rows = down.window[static_cast<std::size_t>(oh)],
               columns = across.window[static_cast<std::size_t>(ow)];
    const T* image = from + pixel / result.width / result.height * height * width * channels;
    const Vec share = broadcast(share_of(down, across, oh, ow));
    for_each_group(channels, [&, channels = channels, width = width](std::int64_t c, auto lanes) {
      Vec sum{};
      for (std::int64_t y = rows.begin; y < rows.end; ++y) {
        Vec row{};  // sums of rows first: closer than one long sum
        for (std::int64_t w = columns.begin; w < columns.end; ++w) {
          row += load(image + (y * width + w) * channels + c, lanes);
        }
        sum += row;
      }
      store(to + c, sum * share, lanes);
    });
  }
}

/// Each input gathers from the windows that hold it, so it is written once.
template <typename T>
void backward(const Tensor& grad, const Pool2dOptions& params, Tensor& grad_x) {
  const auto [images, channels, height, width] = image_sizes(grad_x);
  const ImageSizes result = image_sizes(grad);
  const PoolAxis down = PoolAxis::height(grad_x.shape(), grad.shape(), params);
  const PoolAxis across = PoolAxis::width(grad_x.shape(), grad.shape(), params);
  const T* from = grad.data<T>();
  T* to = grad_x.data<T>();
  for (std::int64_t place = 0; place < images * height * width; ++place, to += channels) {
    const std::int64_t x = place % width, y = place / width % height, n = place / width / height;
    const Span rows = down.readers[static_cast<std::size_t>(y)],
               columns = across.readers[static_cast<std::size_t>(x)];
    const T* image = from + n * result.height * result.width * channels;
    for_each_group(channels, [&, channels = channels](std::int64_t c, auto lanes) {
      Vec sum{};
      for (std::int64_t oh = rows.begin; oh < rows.end; ++oh) {
        for (std::int64_t ow = columns.begin; ow < columns.end; ++ow) {
          sum += load(image + (oh * result.width + ow) * channels + c, lanes) *
                 broadcast(share_of(down, across, oh, ow));
        }
      }
      store(to + c, sum, lanes);
    });
  }
}

}  // namespace

void avg_pool2d_forward(const Tensor& x, const Pool2dOptions& params, Tensor& out) {
  visit_float(x.dtype(), "avg_pool2d", [&]<typename T>() { forward<T>(x, params, out); });
}

void avg_pool2d_backward(const Tensor& grad, const Pool2dOptions& params, Tensor& grad_x) {
  visit_float(grad.dtype(), "avg_pool2d", [&]<typename T>() { backward<T>(grad, params, grad_x); });
}

}  // namespace millrace::cpu
