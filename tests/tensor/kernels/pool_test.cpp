#include "tensor/kernels/pool.h"

#include <gtest/gtest.h>
#include <limits>

#include "support.h"

namespace millrace {
namespace {

struct PoolCase {
  std::int64_t n, channels, height, width;
  std::int64_t out_height, out_width;  // used by the adaptive form only
  Pool2dOptions params;
};

struct Window {
  std::int64_t begin, end, origin, extent;
};

Window window_of(std::int64_t o, std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
                 std::int64_t padding, bool adaptive) {
  if (adaptive) {
    const std::int64_t begin = o * in / out, end = ((o + 1) * in + out - 1) / out;
    return {begin, end, begin, end - begin};
  }
  const std::int64_t origin = o * stride - padding;
  return {std::max<std::int64_t>(origin, 0), std::min(origin + kernel, in), origin, kernel};
}

/// Calls f(place in x, place in out, place in window, places in window) for every pair, all row-major.
template <typename F>
void for_each_pair(const PoolCase& c, const Shape& out, F&& f) {
  const auto& p = c.params;
  for (std::int64_t plane = 0; plane < c.n * c.channels; ++plane) {
    for (std::int64_t oh = 0; oh < out[2]; ++oh) {
      const Window down = window_of(oh, c.height, out[2], p.kernel.height, p.step().height, p.padding.height,
                                    p.is_adaptive());
      for (std::int64_t ow = 0; ow < out[3]; ++ow) {
        const Window across =
            window_of(ow, c.width, out[3], p.kernel.width, p.step().width, p.padding.width, p.is_adaptive());
        for (std::int64_t y = down.begin; y < down.end; ++y) {
          for (std::int64_t x = across.begin; x < across.end; ++x) {
            f(static_cast<std::size_t>((plane * c.height + y) * c.width + x),
              static_cast<std::size_t>((plane * out[2] + oh) * out[3] + ow),
              (y - down.origin) * across.extent + x - across.origin, down.extent * across.extent);
          }
        }
      }
    }
  }
}

Shape out_shape(const PoolCase& c) {
  const auto& p = c.params;
  if (p.is_adaptive()) {
    return {c.n, c.channels, c.out_height, c.out_width};
  }
  return {c.n, c.channels, (c.height + 2 * p.padding.height - p.kernel.height) / p.step().height + 1,
          (c.width + 2 * p.padding.width - p.kernel.width) / p.step().width + 1};
}

void check_max(const PoolCase& c, DType dtype, std::uint64_t seed) {
  const TensorOptions image{.dtype = dtype, .format = MemoryFormat::channels_last};
  Draw draw(seed);
  // Few different values, so that ties are common.
  std::vector<double> numbers(static_cast<std::size_t>(c.n * c.channels * c.height * c.width));
  for (double& number : numbers) {
    number = std::round(2 * draw.next());
  }
  const Tensor x = Draw::filled(numbers, {c.n, c.channels, c.height, c.width}, image);
  const Shape shape = out_shape(c);
  const Tensor grad = draw.tensor(shape, image);
  std::int64_t most_places = 0;
  std::vector<double> out(static_cast<std::size_t>(shape.numel()), -1e9), winner(out.size()),
      grad_x(numbers.size());
  std::vector<std::size_t> from(out.size());
  for_each_pair(c, shape, [&](std::size_t xi, std::size_t oi, std::int64_t place, std::int64_t places) {
    most_places = std::max(most_places, places);
    if (numbers[xi] > out[oi]) {
      out[oi] = numbers[xi];
      winner[oi] = static_cast<double>(place);
      from[oi] = xi;
    }
  });
  const auto g = values(grad);
  for (std::size_t i = 0; i < out.size(); ++i) {
    grad_x[from[i]] += g[i];
  }

  Tensor got = garbage(shape, image), got_x = garbage(x.shape(), image);
  Tensor index =
      garbage(shape, {.dtype = most_places <= 256 ? DType::u8 : DType::i32, .format = image.format});
  cpu::max_pool2d_forward(x, c.params, got, index);
  cpu::max_pool2d_backward(grad, index, c.params, got_x);
  EXPECT_EQ(values(got), out);
  EXPECT_EQ(values(index), winner);
  expect_close(got_x, grad_x, dtype, "grad_x");
}

void check_avg(const PoolCase& c, DType dtype, std::uint64_t seed) {
  const TensorOptions image{.dtype = dtype, .format = MemoryFormat::channels_last};
  Draw draw(seed);
  const Tensor x = draw.tensor({c.n, c.channels, c.height, c.width}, image);
  const Shape shape = out_shape(c);
  const Tensor grad = draw.tensor(shape, image);
  const auto xs = values(x), gs = values(grad);
  std::vector<double> out(gs.size()), grad_x(xs.size());
  for_each_pair(c, shape, [&](std::size_t xi, std::size_t oi, std::int64_t, std::int64_t places) {
    out[oi] += xs[xi] / static_cast<double>(places);
    grad_x[xi] += gs[oi] / static_cast<double>(places);
  });
  Tensor got = garbage(shape, image), got_x = garbage(x.shape(), image);
  cpu::avg_pool2d_forward(x, c.params, got);
  cpu::avg_pool2d_backward(grad, c.params, got_x);
  expect_close(got, out, dtype, "out");
  expect_close(got_x, grad_x, dtype, "grad_x");
}

std::vector<PoolCase> pool_cases() {
  return {
      {2, 6, 28, 28, 0, 0, {}},
      {2, 16, 10, 10, 0, 0, {}},
      {2, 1, 6, 71, 0, 0, {}},  // several windows in a vector
      {3, 3, 9, 11, 0, 0, {}},
      {2, 5, 3, 2, 0, 0, {}},
      {1, 2, 4, 38, 0, 0, {}},
      {2, 7, 5, 11, 0, 0, {}},
      {2, 8, 4, 10, 0, 0, {}},
      {1, 70, 7, 5, 0, 0, {}},  // the last row and column are in no window
      {2, 33, 1, 1, 0, 0, {.kernel = 1, .stride = 1}},
      {2, 5, 9, 8, 0, 0, {.kernel = 3, .stride = 2, .padding = 1}},
      {1, 17, 8, 9, 0, 0, {.kernel = {3, 2}, .stride = {1, 2}, .padding = {1, 0}}},
      {1, 3, 9, 9, 0, 0, {.kernel = 2, .stride = 3}},
      {1, 2, 20, 20, 0, 0, {.kernel = 17, .stride = 1}},  // more than 256 places
      {2, 20, 7, 7, 1, 1, {.kernel = 0}},
      {2, 9, 7, 10, 3, 4, {.kernel = 0}},
      {1, 4, 2, 3, 5, 6, {.kernel = 0}},  // windows overlap
      {0, 4, 4, 4, 0, 0, {}},
      {2, 0, 4, 4, 0, 0, {}},
  };
}

TEST(NetworkKernelsPool, MatchesNaiveLoops) {
  std::uint64_t seed = 20;
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const PoolCase& c : pool_cases()) {
      SCOPED_TRACE(fmt::format("{} {}x{}x{}x{}, seed {}", dtype, c.n, c.channels, c.height, c.width, seed));
      check_max(c, dtype, seed);
      check_avg(c, dtype, seed++);
    }
  }
}

TEST(NetworkKernelsPool, NotANumberWins) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::pair<std::vector<double>, double>> cases{
      {{1, nan, 3, 2}, 1}, {{nan, 4, 3, 2}, 0}, {{1, 2, 3, nan}, 3}, {{nan, 1, nan, 9}, 2}};
  const TensorOptions image{.format = MemoryFormat::channels_last};
  for (const auto& [window, winner] : cases) {
    for (const std::int64_t channels : {1, 17}) {
      std::vector<double> numbers;
      for (std::int64_t c = 0; c < channels; ++c) {
        numbers.insert(numbers.end(), window.begin(), window.end());
      }
      const Tensor x = Draw::filled(numbers, {1, channels, 2, 2}, image);
      Tensor out = empty({1, channels, 1, 1}, image), index = empty(out.shape(), {.dtype = DType::u8});
      cpu::max_pool2d_forward(x, {}, out, index);
      for (std::int64_t c = 0; c < channels; ++c) {
        EXPECT_TRUE(std::isnan(values(out)[static_cast<std::size_t>(c)]));
        EXPECT_EQ(values(index)[static_cast<std::size_t>(c)], winner);
      }
    }
  }
}

TEST(NetworkKernelsPad, MatchesNaiveLoops) {
  std::uint64_t seed = 40;
  for (const Pad2d& pad : {Pad2d{2, 2, 2, 2}, Pad2d{0, 3, 1, 0}, Pad2d{4, 4, 4, 4}}) {
    for (PadMode mode : {PadMode::zero, PadMode::reflect}) {
      for (DType dtype : {DType::f32, DType::bf16}) {
        SCOPED_TRACE(fmt::format("pad {} {} {} {}, {}, seed {}", pad.left, pad.right, pad.top, pad.bottom,
                                 dtype, seed));
        const TensorOptions image{.dtype = dtype, .format = MemoryFormat::channels_last};
        const std::int64_t height = 5, width = 6, planes = 2 * 19;
        const std::int64_t out_height = height + pad.top + pad.bottom,
                           out_width = width + pad.left + pad.right;
        Draw draw(seed++);
        const Tensor x = draw.tensor({2, 19, height, width}, image);
        const Tensor grad = draw.tensor({2, 19, out_height, out_width}, image);
        const auto xs = values(x), gs = values(grad);
        std::vector<double> out(gs.size()), grad_x(xs.size());
        const auto mirror = [](std::int64_t i, std::int64_t size) {
          return i < 0 ? -i : i >= size ? 2 * size - 2 - i : i;
        };
        for (std::int64_t place = 0; place < planes * out_height * out_width; ++place) {
          std::int64_t y = place / out_width % out_height - pad.top, w = place % out_width - pad.left;
          const bool inside = y >= 0 && y < height && w >= 0 && w < width;
          if (mode == PadMode::zero && !inside) {
            continue;
          }
          y = mirror(y, height), w = mirror(w, width);
          const auto from =
              static_cast<std::size_t>((place / (out_width * out_height) * height + y) * width + w);
          out[static_cast<std::size_t>(place)] = xs[from];
          grad_x[from] += gs[static_cast<std::size_t>(place)];
        }
        Tensor got = garbage(grad.shape(), image), got_x = garbage(x.shape(), image);
        cpu::pad2d_forward(x, pad, mode, got);
        cpu::pad2d_backward(grad, pad, mode, got_x);
        EXPECT_EQ(values(got), out);
        expect_close(got_x, grad_x, dtype, "grad_x");
      }
    }
  }
}

}  // namespace
}  // namespace millrace
