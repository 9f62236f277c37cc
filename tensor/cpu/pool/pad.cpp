#include <algorithm>
#include <array>
#include <cstdint>

#include "tensor/cpu/channels.h"
#include "tensor/cpu/image_sizes.h"
#include "tensor/cpu/visit_float.h"
#include "tensor/kernels/pool.h"

namespace millrace::cpu {

using namespace channels;

namespace {

constexpr std::int64_t kNowhere = -1;

/// The input that output `o` of a padded axis shows, or kNowhere for a zero.
std::int64_t source_of(std::int64_t o, std::int64_t before, std::int64_t size, PadMode mode) {
  const std::int64_t i = o - before;
  if (i >= 0 && i < size) {
    return i;
  }
  if (mode == PadMode::zero) {
    return kNowhere;
  }
  return i < 0 ? -i : 2 * (size - 1) - i;
}

/// The outputs that show input i: itself and its mirror images. Returns how many.
int shown_at(std::int64_t i, std::int64_t before, std::int64_t size, std::int64_t after, PadMode mode,
             std::array<std::int64_t, 3>& places) {
  int count = 0;
  places[static_cast<std::size_t>(count++)] = before + i;
  if (mode == PadMode::zero) {
    return count;
  }
  if (i >= 1 && i <= before) {
    places[static_cast<std::size_t>(count++)] = before - i;
  }
  if (i < size - 1 && i >= size - 1 - after) {
    places[static_cast<std::size_t>(count++)] = before + 2 * (size - 1) - i;
  }
  return count;
}

template <typename T>
void forward(const Tensor& x, const Pad2d& pad, PadMode mode, T* to) {
  const auto [images, channels, height, width] = image_sizes(x);
  const std::int64_t out_width = width + pad.left + pad.right;
  const T* image = x.data<T>();
  for (std::int64_t n = 0; n < images; ++n, image += height * width * channels) {
    for (std::int64_t oh = 0; oh < height + pad.top + pad.bottom; ++oh, to += out_width * channels) {
      const std::int64_t y = source_of(oh, pad.top, height, mode);
      if (y == kNowhere) {
        std::fill_n(to, out_width * channels, T{});
        continue;
      }
      const T* row = image + y * width * channels;
      const auto edge = [&, channels = channels, width = width](std::int64_t ow) {
        const std::int64_t from = source_of(ow, pad.left, width, mode);
        if (from == kNowhere) {
          std::fill_n(to + ow * channels, channels, T{});
        } else {
          std::copy_n(row + from * channels, channels, to + ow * channels);
        }
      };
      for (std::int64_t ow = 0; ow < pad.left; ++ow) {
        edge(ow);
      }
      std::copy_n(row, width * channels, to + pad.left * channels);
      for (std::int64_t ow = pad.left + width; ow < out_width; ++ow) {
        edge(ow);
      }
    }
  }
}

template <typename T>
void backward(const T* grad, const Pad2d& pad, PadMode mode, Tensor& grad_x) {
  const auto [images, channels, height, width] = image_sizes(grad_x);
  const std::int64_t row_stride = (width + pad.left + pad.right) * channels;
  T* to = grad_x.data<T>();
  std::array<std::int64_t, 3> rows{}, columns{};
  for (std::int64_t n = 0; n < images; ++n, grad += (height + pad.top + pad.bottom) * row_stride) {
    for (std::int64_t y = 0; y < height; ++y) {
      const int row_count = shown_at(y, pad.top, height, pad.bottom, mode, rows);
      for (std::int64_t x = 0; x < width; ++x, to += channels) {
        const int column_count = shown_at(x, pad.left, width, pad.right, mode, columns);
        for_each_group(channels, [&](std::int64_t c, auto lanes) {
          Vec sum{};
          for (int r = 0; r < row_count; ++r) {
            for (int k = 0; k < column_count; ++k) {
              const std::int64_t from = rows[static_cast<std::size_t>(r)] * row_stride +
                                        columns[static_cast<std::size_t>(k)] * channels;
              sum += load(grad + from + c, lanes);
            }
          }
          store(to + c, sum, lanes);
        });
      }
    }
  }
}

}  // namespace

void pad2d_forward(const Tensor& x, const Pad2d& pad, PadMode mode, Tensor& out) {
  visit_float(x.dtype(), "pad2d", [&]<typename T>() { forward(x, pad, mode, out.data<T>()); });
}

void pad2d_backward(const Tensor& grad, const Pad2d& pad, PadMode mode, Tensor& grad_x) {
  visit_float(grad.dtype(), "pad2d", [&]<typename T>() { backward(grad.data<T>(), pad, mode, grad_x); });
}

}  // namespace millrace::cpu
