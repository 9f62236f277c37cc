#include "tensor/cpu/channels.h"
#include "tensor/cpu/image_sizes.h"
#include "tensor/cpu/pool_axis.h"
#include "tensor/cpu/visit_float.h"
#include "tensor/kernels.h"
#include "tensor/visit_size.h"

namespace millrace::cpu {

using namespace channels;

namespace {

/// Calls f(image, output pixel, rows, columns, places per row, first place) for each window, in the order of
/// memory. The first place is that of the first input read: it is not 0 where the window is clipped.
template <typename F>
void for_each_window(std::int64_t images, const PoolAxis& down, const PoolAxis& across, F&& f) {
  const std::size_t height = down.window.size(), width = across.window.size();
  std::int64_t pixel = 0;
  for (std::int64_t n = 0; n < images; ++n) {
    for (std::size_t oh = 0; oh < height; ++oh) {
      const Span rows = down.window[oh];
      const std::int64_t skipped = rows.begin - down.origin[oh];
      for (std::size_t ow = 0; ow < width; ++ow, ++pixel) {
        const Span columns = across.window[ow];
        const std::int64_t first = skipped * across.extent[ow] + columns.begin - across.origin[ow];
        f(n, pixel, rows, columns, across.extent[ow], static_cast<std::int32_t>(first));
      }
    }
  }
}

/// The largest of one window of `rows` by `columns` inputs, whose places are `places` apart from row to row.
/// The first of equal maxima wins and the last NaN, as in PyTorch.
template <typename T, typename Index, typename Count>
void window_maximum(const T* x, std::int64_t row_step, std::int64_t channels, Count rows, Count columns,
                    std::int64_t places, std::int32_t first, T* out, Index* index) {
  for_each_group(channels, [&](std::int64_t c, auto lanes) {
    const T* row = x + c;
    Vec best = load(row, lanes);
    IntVec winner = broadcast(first);
    for (std::int64_t y = 0; y < rows; ++y, row += row_step) {
      for (std::int64_t i = 0; i < columns; ++i) {
        take_larger(load(row + i * channels, lanes), static_cast<std::int32_t>(first + y * places + i), best,
                    winner);
      }
    }
    store(out + c, best, lanes);
    store(index + c, winner, lanes);
  });
}

template <typename T, typename Index>
void forward(const Tensor& x, const Pool2dParams& params, Tensor& out, Tensor& index) {
  const auto [images, channels, height, width] = image_sizes(x);
  const PoolAxis down = PoolAxis::height(x.shape(), out.shape(), params);
  const PoolAxis across = PoolAxis::width(x.shape(), out.shape(), params);
  const T* from = x.data<T>();
  T* to = out.data<T>();
  Index* winners = index.data<Index>();
  for_each_window(images, down, across,
                  [&, channels = channels, height = height, width = width](
                      std::int64_t n, std::int64_t pixel, Span rows, Span columns, std::int64_t places,
                      std::int32_t first) {
                    const T* window = from + ((n * height + rows.begin) * width + columns.begin) * channels;
                    const std::int64_t high = rows.end - rows.begin, wide = columns.end - columns.begin;
                    const auto take = [&](auto h, auto w) {
                      window_maximum(window, width * channels, channels, h, w, places, first,
                                     to + pixel * channels, winners + pixel * channels);
                    };
                    if (high == 2 && wide == 2) {  // nearly all windows are so, and unrolled
                      using Two = std::integral_constant<std::int64_t, 2>;
                      take(Two{}, Two{});
                    } else {
                      take(high, wide);
                    }
                  });
}

/// Windows that share no input: each input is written by its own window.
template <typename T, typename Index>
void backward_disjoint(const Tensor& grad, const Tensor& index, const PoolAxis& down, const PoolAxis& across,
                       Tensor& grad_x) {
  const auto [images, channels, height, width] = image_sizes(grad_x);
  const T* from = grad.data<T>();
  const Index* winners = index.data<Index>();
  T* to = grad_x.data<T>();
  if (!down.is_covered() || !across.is_covered()) {
    std::fill_n(to, grad_x.numel(), T{});
  }
  for_each_window(
      images, down, across,
      [&, channels = channels, height = height, width = width](std::int64_t n, std::int64_t pixel, Span rows,
                                                               Span columns, std::int64_t places,
                                                               std::int32_t first) {
        for_each_group(channels, [&](std::int64_t c, auto lanes) {
          const Vec g = load(from + pixel * channels + c, lanes);
          const IntVec winner = load(winners + pixel * channels + c, lanes);
          T* row = to + ((n * height + rows.begin) * width + columns.begin) * channels + c;
          for (std::int64_t y = 0; y < rows.end - rows.begin; ++y, row += width * channels) {
            for (std::int64_t i = 0; i < columns.end - columns.begin; ++i) {
              store(row + i * channels,
                    winner == broadcast(static_cast<std::int32_t>(first + y * places + i)) ? g : Vec{},
                    lanes);
            }
          }
        });
      });
}

/// Windows that overlap: each input gathers from the windows that hold it, so it is written once too.
template <typename T, typename Index>
void backward_overlapping(const Tensor& grad, const Tensor& index, const PoolAxis& down,
                          const PoolAxis& across, Tensor& grad_x) {
  const auto [images, channels, height, width] = image_sizes(grad_x);
  const auto out_height = static_cast<std::int64_t>(down.window.size());
  const auto out_width = static_cast<std::int64_t>(across.window.size());
  const T* from = grad.data<T>();
  const Index* winners = index.data<Index>();
  T* to = grad_x.data<T>();
  for (std::int64_t place = 0; place < images * height * width; ++place, to += channels) {
    const std::int64_t x = place % width, y = place / width % height, n = place / width / height;
    const Span rows = down.readers[static_cast<std::size_t>(y)],
               columns = across.readers[static_cast<std::size_t>(x)];
    for_each_group(channels, [&](std::int64_t c, auto lanes) {
      Vec sum{};
      for (std::int64_t oh = rows.begin; oh < rows.end; ++oh) {
        for (std::int64_t ow = columns.begin; ow < columns.end; ++ow) {
          const auto h = static_cast<std::size_t>(oh), w = static_cast<std::size_t>(ow);
          const auto own =
              static_cast<std::int32_t>((y - down.origin[h]) * across.extent[w] + x - across.origin[w]);
          const std::int64_t reader = ((n * out_height + oh) * out_width + ow) * channels + c;
          sum += load(winners + reader, lanes) == broadcast(own) ? load(from + reader, lanes) : Vec{};
        }
      }
      store(to + c, sum, lanes);
    });
  }
}

template <typename T, typename Index>
void backward(const Tensor& grad, const Tensor& index, const Pool2dParams& params, Tensor& grad_x) {
  const PoolAxis down = PoolAxis::height(grad_x.shape(), grad.shape(), params);
  const PoolAxis across = PoolAxis::width(grad_x.shape(), grad.shape(), params);
  if (down.is_disjoint() && across.is_disjoint()) {
    backward_disjoint<T, Index>(grad, index, down, across, grad_x);
  } else {
    backward_overlapping<T, Index>(grad, index, down, across, grad_x);
  }
}

}  // namespace

void max_pool2d_forward(const Tensor& x, const Pool2dParams& params, Tensor& out, Tensor& index) {
  visit_float(x.dtype(), "max_pool2d", [&]<typename T>() {
    visit_place(index.dtype(), [&]<typename Index>() { forward<T, Index>(x, params, out, index); });
  });
}

void max_pool2d_backward(const Tensor& grad, const Tensor& index, const Pool2dParams& params,
                         Tensor& grad_x) {
  visit_float(grad.dtype(), "max_pool2d", [&]<typename T>() {
    visit_place(index.dtype(), [&]<typename Index>() { backward<T, Index>(grad, index, params, grad_x); });
  });
}

}  // namespace millrace::cpu
