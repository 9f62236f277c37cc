#include "tensor/cpu/channels.h"
#include "tensor/cpu/pool_axis.h"
#include "tensor/cpu/visit_float.h"
#include "tensor/kernels.h"

namespace millrace::cpu {

using namespace channels;

namespace {

template <typename F>
void visit_index(DType dtype, F&& f) {
  if (dtype == DType::u8) {
    f.template operator()<std::uint8_t>();
  } else {
    f.template operator()<std::int32_t>();
  }
}

/// One output pixel. The first of equal maxima wins and the last NaN, as in PyTorch.
template <typename T, typename Index>
void pool_pixel(const T* image, Span rows, Span columns, std::int64_t row_stride, std::int64_t channels,
                std::int64_t first_place, std::int64_t places_per_row, T* out, Index* index) {
  for_each_group(channels, [&](std::int64_t c, auto lanes) {
    Vec best = load(image + rows.begin * row_stride + columns.begin * channels + c, lanes);
    IntVec winner = broadcast(static_cast<std::int32_t>(first_place));
    for (std::int64_t y = rows.begin; y < rows.end; ++y) {
      auto place = static_cast<std::int32_t>(first_place + (y - rows.begin) * places_per_row);
      for (std::int64_t x = columns.begin; x < columns.end; ++x, ++place) {
        const Vec value = load(image + y * row_stride + x * channels + c, lanes);
        const IntVec take = (value > best) | (value != value);
        best = take ? value : best;
        winner = take ? broadcast(place) : winner;
      }
    }
    store(out + c, best, lanes);
    store(index + c, winner, lanes);
  });
}

template <typename T, typename Index>
void forward(const Tensor& x, const Pool2dParams& params, Tensor& out, Tensor& index) {
  const PoolAxis down = PoolAxis::height(x.shape(), out.shape(), params);
  const PoolAxis across = PoolAxis::width(x.shape(), out.shape(), params);
  const std::int64_t channels = x.size(1);
  const std::int64_t row_stride = x.size(3) * channels;
  const T* image = x.data<T>();
  T* value = out.data<T>();
  Index* winner = index.data<Index>();
  for (std::int64_t n = 0; n < x.size(0); ++n, image += x.size(2) * row_stride) {
    for (std::size_t oh = 0; oh < down.window.size(); ++oh) {
      const Span rows = down.window[oh];
      for (std::size_t ow = 0; ow < across.window.size(); ++ow, value += channels, winner += channels) {
        const Span columns = across.window[ow];
        const std::int64_t first_place =
            (rows.begin - down.origin[oh]) * across.extent[ow] + columns.begin - across.origin[ow];
        pool_pixel(image, rows, columns, row_stride, channels, first_place, across.extent[ow], value, winner);
      }
    }
  }
}

/// Each input gathers from the windows that hold it, so it is written once, whether or not windows overlap.
template <typename T, typename Index>
void backward(const Tensor& grad, const Tensor& index, const Pool2dParams& params, Tensor& grad_x) {
  const PoolAxis down = PoolAxis::height(grad_x.shape(), grad.shape(), params);
  const PoolAxis across = PoolAxis::width(grad_x.shape(), grad.shape(), params);
  const std::int64_t channels = grad.size(1);
  const std::int64_t row_stride = grad.size(3) * channels;
  const T* image = grad.data<T>();
  const Index* winners = index.data<Index>();
  T* out = grad_x.data<T>();
  for (std::int64_t n = 0; n < grad.size(0); ++n) {
    for (std::int64_t y = 0; y < grad_x.size(2); ++y) {
      const Span rows = down.readers[static_cast<std::size_t>(y)];
      for (std::int64_t x = 0; x < grad_x.size(3); ++x, out += channels) {
        const Span columns = across.readers[static_cast<std::size_t>(x)];
        for_each_group(channels, [&](std::int64_t c, auto lanes) {
          Vec sum{};
          for (std::int64_t oh = rows.begin; oh < rows.end; ++oh) {
            for (std::int64_t ow = columns.begin; ow < columns.end; ++ow) {
              const auto h = static_cast<std::size_t>(oh);
              const auto w = static_cast<std::size_t>(ow);
              const auto place =
                  static_cast<std::int32_t>((y - down.origin[h]) * across.extent[w] + x - across.origin[w]);
              const std::int64_t from = oh * row_stride + ow * channels + c;
              sum += load(winners + from, lanes) == broadcast(place) ? load(image + from, lanes) : Vec{};
            }
          }
          store(out + c, sum, lanes);
        });
      }
    }
    image += grad.size(2) * row_stride;
    winners += grad.size(2) * row_stride;
  }
}

}  // namespace

void max_pool2d_forward(const Tensor& x, const Pool2dParams& params, Tensor& out, Tensor& index) {
  visit_float(x.dtype(), "max_pool2d", [&]<typename T>() {
    visit_index(index.dtype(), [&]<typename Index>() { forward<T, Index>(x, params, out, index); });
  });
}

void max_pool2d_backward(const Tensor& grad, const Tensor& index, const Pool2dParams& params,
                         Tensor& grad_x) {
  visit_float(grad.dtype(), "max_pool2d", [&]<typename T>() {
    visit_index(index.dtype(), [&]<typename Index>() { backward<T, Index>(grad, index, params, grad_x); });
  });
}

}  // namespace millrace::cpu
