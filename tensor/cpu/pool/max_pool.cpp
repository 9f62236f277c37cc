#include "tensor/cpu/channels.h"
#include "tensor/cpu/image_sizes.h"
#include "tensor/cpu/pool/pool_axis.h"
#include "tensor/cpu/visit_float.h"
#include "tensor/kernels/pool.h"
#include "tensor/kernels/visit_size.h"

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

/// Places between two vectors of a row of pixels and two of its windows' left and right pixels, and back.
struct Shuffles {
  using Places = std::array<std::int32_t, 16>;
  Places left{}, right{}, to_low{}, to_high{};
  explicit constexpr Shuffles(std::int32_t channels) {
    for (std::int32_t lane = 0; lane < 32; ++lane) {
      const std::int32_t pixel = lane / channels, channel = lane % channels;
      const std::int32_t place = pixel % 2 * 16 + pixel / 2 * channels + channel;
      if (lane < 16) {
        to_low[lane] = place;
        left[lane] = 2 * pixel * channels + channel;
        right[lane] = left[lane] + channels;
      } else {
        to_high[lane - 16] = place;
      }
    }
  }
};
constexpr std::array kShuffles{Shuffles(1), Shuffles(1), Shuffles(2), Shuffles(3), Shuffles(4),
                               Shuffles(5), Shuffles(6), Shuffles(7), Shuffles(8)};  // by channels

/// Windows of 2x2 over few channels: as many neighbours at once as a vector holds, of which one alone would
/// leave most of it empty.
class Neighbours {
 public:
#if defined(MILLRACE_MASKED_LANES)
  static bool fit(std::int64_t channels, const Pool2dOptions& p) {
    return channels > 0 && 2 * channels <= kLanes && p.kernel == Size2(2) && p.step() == Size2(2) &&
           p.padding == Size2(0);
  }
#else
  static bool fit(std::int64_t, const Pool2dOptions&) { return false; }  // shuffles would be slow
#endif

  Neighbours(const ImageSizes& in, const ImageSizes& out)
      : in_(in), out_(out), most_(kLanes / in.channels * in.channels) {
    const Shuffles& shuffles = kShuffles[static_cast<std::size_t>(in.channels)];
    left_ = load(shuffles.left.data()), right_ = load(shuffles.right.data());
    to_low_ = load(shuffles.to_low.data()), to_high_ = load(shuffles.to_high.data());
  }

  /// Calls f(place of the pixels above, of those below, place of the windows, lanes of the windows).
  template <typename F>
  void for_each(F&& f) const {
    const std::int64_t in_row = in_.width * in_.channels, out_row = out_.width * out_.channels;
    std::int64_t window = 0;
    for (std::int64_t n = 0; n < in_.images; ++n) {
      std::int64_t pixel = n * in_.height * in_row;
      for (std::int64_t h = 0; h < out_.height; ++h, pixel += 2 * in_row, window += out_row) {
        for (std::int64_t w = 0; w < out_row; w += most_) {
          f(pixel + 2 * w, pixel + in_row + 2 * w, window + w, std::min(most_, out_row - w));
        }
      }
    }
  }

  /// Of a row of pixels the left ones of the windows, and the right ones.
  template <typename T>
  std::array<Vec, 2> read(const T* row, std::int64_t lanes) const {
    const Vec low = load(row, std::min(2 * lanes, kLanes));
    const Vec high = load(row + kLanes, std::max<std::int64_t>(2 * lanes - kLanes, 0));
    return {shuffle(low, high, left_), shuffle(low, high, right_)};
  }
  /// And back.
  template <typename T>
  void write(Vec left, Vec right, T* row, std::int64_t lanes) const {
    store(row, shuffle(left, right, to_low_), std::min(2 * lanes, kLanes));
    store(row + kLanes, shuffle(left, right, to_high_), std::max<std::int64_t>(2 * lanes - kLanes, 0));
  }

 private:
  ImageSizes in_, out_;
  std::int64_t most_;  // lanes
  IntVec left_, right_, to_low_, to_high_;
};

template <typename T>
void forward_neighbours(const Tensor& x, Tensor& out, Tensor& index) {
  const Neighbours neighbours(image_sizes(x), image_sizes(out));
  const T* from = x.data<T>();
  T* to = out.data<T>();
  std::uint8_t* winners = index.data<std::uint8_t>();
  neighbours.for_each([&](std::int64_t above, std::int64_t below, std::int64_t window, std::int64_t lanes) {
    const auto [left, right] = neighbours.read(from + above, lanes);
    const auto [lower_left, lower_right] = neighbours.read(from + below, lanes);
    Vec best = left;
    IntVec winner{};
    take_larger(right, 1, best, winner);
    take_larger(lower_left, 2, best, winner);
    take_larger(lower_right, 3, best, winner);
    store(to + window, best, lanes);
    store(winners + window, winner, lanes);
  });
}

template <typename T>
void backward_neighbours(const Tensor& grad, const Tensor& index, Tensor& grad_x) {
  const Neighbours neighbours(image_sizes(grad_x), image_sizes(grad));
  const T* from = grad.data<T>();
  const std::uint8_t* winners = index.data<std::uint8_t>();
  T* to = grad_x.data<T>();
  neighbours.for_each([&](std::int64_t above, std::int64_t below, std::int64_t window, std::int64_t lanes) {
    const Vec g = load(from + window, lanes);
    const IntVec winner = load(winners + window, lanes);
    const auto part = [&](std::int32_t place) { return winner == broadcast(place) ? g : Vec{}; };
    neighbours.write(part(0), part(1), to + above, lanes);
    neighbours.write(part(2), part(3), to + below, lanes);
  });
}

template <typename T, typename Index>
void forward(const Tensor& x, const Pool2dOptions& params, Tensor& out, Tensor& index) {
  if constexpr (std::is_same_v<Index, std::uint8_t>) {
    if (Neighbours::fit(x.size(1), params)) {
      return forward_neighbours<T>(x, out, index);
    }
  }
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
void backward_disjoint(const Tensor& grad, const Tensor& index, const Pool2dOptions& params,
                       const PoolAxis& down, const PoolAxis& across, Tensor& grad_x) {
  const auto [images, channels, height, width] = image_sizes(grad_x);
  const T* from = grad.data<T>();
  const Index* winners = index.data<Index>();
  T* to = grad_x.data<T>();
  if (!down.is_covered() || !across.is_covered()) {
    std::fill_n(to, grad_x.numel(), T{});
  }
  if constexpr (std::is_same_v<Index, std::uint8_t>) {
    if (Neighbours::fit(channels, params)) {
      return backward_neighbours<T>(grad, index, grad_x);
    }
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
void backward(const Tensor& grad, const Tensor& index, const Pool2dOptions& params, Tensor& grad_x) {
  const PoolAxis down = PoolAxis::height(grad_x.shape(), grad.shape(), params);
  const PoolAxis across = PoolAxis::width(grad_x.shape(), grad.shape(), params);
  if (down.is_disjoint() && across.is_disjoint()) {
    backward_disjoint<T, Index>(grad, index, params, down, across, grad_x);
  } else {
    backward_overlapping<T, Index>(grad, index, down, across, grad_x);
  }
}

}  // namespace

void max_pool2d_forward(const Tensor& x, const Pool2dOptions& params, Tensor& out, Tensor& index) {
  visit_float(x.dtype(), "max_pool2d", [&]<typename T>() {
    visit_place(index.dtype(), [&]<typename Index>() { forward<T, Index>(x, params, out, index); });
  });
}

void max_pool2d_backward(const Tensor& grad, const Tensor& index, const Pool2dOptions& params,
                         Tensor& grad_x) {
  visit_float(grad.dtype(), "max_pool2d", [&]<typename T>() {
    visit_place(index.dtype(), [&]<typename Index>() { backward<T, Index>(grad, index, params, grad_x); });
  });
}

}  // namespace millrace::cpu
