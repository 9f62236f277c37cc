#include "tensor/kernels/conv.h"

#include <gtest/gtest.h>
#include <thread>
#include <vector>

#include "support.h"
#include "tensor/cpu/conv/winograd.h"

namespace millrace {
namespace {

struct ConvCase {
  std::int64_t n, in, height, width, out, kernel_height, kernel_width;
  Conv2dOptions params = {};
  bool bias = true;
  Size2 left_out = 0;  ///< Of the result's last rows and columns.
};

std::int64_t pooled(std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                    std::int64_t dilation) {
  return (in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

/// The naive loops in double: calls f(place in x, place in weight, place in out) for every product, all
/// row-major.
template <typename F>
void for_each_product(const ConvCase& c, std::int64_t oh_count, std::int64_t ow_count, F&& f) {
  const auto& p = c.params;
  const std::int64_t in_group = c.in / p.groups, out_group = c.out / p.groups;
  for (std::int64_t n = 0; n < c.n; ++n) {
    for (std::int64_t o = 0; o < c.out; ++o) {
      for (std::int64_t oh = 0; oh < oh_count; ++oh) {
        for (std::int64_t ow = 0; ow < ow_count; ++ow) {
          for (std::int64_t i = 0; i < in_group; ++i) {
            for (std::int64_t kh = 0; kh < c.kernel_height; ++kh) {
              for (std::int64_t kw = 0; kw < c.kernel_width; ++kw) {
                const std::int64_t y = oh * p.stride.height - p.padding.height + kh * p.dilation.height;
                const std::int64_t x = ow * p.stride.width - p.padding.width + kw * p.dilation.width;
                if (y < 0 || y >= c.height || x < 0 || x >= c.width) {
                  continue;
                }
                const std::int64_t channel = o / out_group * in_group + i;
                f(((n * c.in + channel) * c.height + y) * c.width + x,
                  ((o * in_group + i) * c.kernel_height + kh) * c.kernel_width + kw,
                  ((n * c.out + o) * oh_count + oh) * ow_count + ow);
              }
            }
          }
        }
      }
    }
  }
}

struct Expected {
  std::vector<double> out, grad_x, grad_w, grad_b;
};

Expected expected(const ConvCase& c, const Tensor& x, const Tensor& weight, const Tensor& bias,
                  const Tensor& grad) {
  const std::int64_t oh = grad.size(2), ow = grad.size(3);
  const auto xs = values(x), ws = values(weight), gs = values(grad);
  Expected to{std::vector<double>(gs.size()), std::vector<double>(xs.size()), std::vector<double>(ws.size()),
              std::vector<double>(static_cast<std::size_t>(c.out))};
  for (std::size_t i = 0; i < gs.size(); ++i) {
    const std::size_t channel = i / static_cast<std::size_t>(oh * ow) % static_cast<std::size_t>(c.out);
    if (c.bias) {
      to.out[i] = values(bias)[channel];
    }
    to.grad_b[channel] += gs[i];
  }
  for_each_product(c, oh, ow, [&](std::int64_t xi, std::int64_t wi, std::int64_t oi) {
    const auto a = static_cast<std::size_t>(xi), b = static_cast<std::size_t>(wi),
               o = static_cast<std::size_t>(oi);
    to.out[o] += xs[a] * ws[b];
    to.grad_x[a] += gs[o] * ws[b];
    to.grad_w[b] += gs[o] * xs[a];
  });
  return to;
}

void check(const ConvCase& c, DType dtype, std::uint64_t seed) {
  const auto& p = c.params;
  const std::int64_t oh =
      pooled(c.height, c.kernel_height, p.stride.height, p.padding.height, p.dilation.height) -
      c.left_out.height;
  const std::int64_t ow =
      pooled(c.width, c.kernel_width, p.stride.width, p.padding.width, p.dilation.width) - c.left_out.width;
  const TensorOptions image{.dtype = dtype, .format = MemoryFormat::channels_last};
  Draw draw(seed);
  const Tensor x = draw.tensor({c.n, c.in, c.height, c.width}, image);
  const Tensor grad = draw.tensor({c.n, c.out, oh, ow}, image);
  // Weights are read in bf16 too, so the reference must see the rounded values.
  const Tensor weight =
      draw.tensor({c.out, c.in / p.groups, c.kernel_height, c.kernel_width}, {.dtype = dtype}).to(DType::f32);
  const Tensor bias = c.bias ? draw.tensor({c.out}, {}) : Tensor();

  const auto [out, grad_x, grad_w, grad_b] = expected(c, x, weight, bias, grad);

  Tensor got_out = garbage(grad.shape(), image);
  Tensor got_x = garbage(x.shape(), image);
  Tensor got_w = garbage(weight.shape(), {});
  Tensor got_b = c.bias ? garbage({c.out}, {}) : Tensor();
  cpu::conv2d_forward(x, weight, bias, p, got_out);
  cpu::conv2d_backward_data(grad, weight, p, got_x);
  cpu::conv2d_backward_weight(x, grad, p, got_w, got_b);
  // In bf16 Winograd's products are of rounded transforms. Channels in and out may be swapped in the
  // question.
  const auto tolerance = [&](const Tensor& of) {
    const bool rounds = cpu::winograd_is_faster(dtype, weight.shape(), p, of.shape());
    return dtype == DType::f32 ? 1e-5 : rounds ? 6.5e-3 : 5e-3;
  };
  expect_within(got_out, out, tolerance(got_out), "out");
  expect_within(got_x, grad_x, tolerance(got_x), "grad_x");
  expect_close(got_w, grad_w, DType::f32, "grad_weight");
  if (c.bias) {
    expect_close(got_b, grad_b, DType::f32, "grad_bias");
  }
}

std::vector<ConvCase> conv_cases() {
  return {
      {2, 3, 32, 32, 6, 5, 5},  // lenet5
      {2, 6, 14, 14, 16, 5, 5},
      {1, 1, 7, 9, 5, 3, 2},
      {3, 3, 8, 33, 8, 2, 4, {.stride = {2, 1}}},
      {2, 8, 40, 6, 1, 3, 3, {.stride = {1, 2}}, false},
      {2, 8, 9, 12, 20, 2, 4},
      {1, 7, 6, 5, 3, 6, 5},
      {2, 2, 31, 8, 11, 3, 8, {.stride = {1, 2}}},
      {2, 3, 9, 9, 24, 2, 2, {}, false},  // airbench94
      {2, 24, 9, 9, 64, 3, 3, {.padding = 1}, false},
      {1, 16, 1, 1, 16, 1, 1},  // a 1x1 image
      {2, 7, 5, 6, 13, 3, 3, {.stride = 2, .padding = 1}},
      {1, 5, 9, 11, 10, 3, 3, {.padding = {2, 1}, .dilation = 2}},
      {2, 12, 6, 6, 18, 3, 3, {.padding = 1, .groups = 3}},
      {2, 16, 7, 7, 16, 3, 3, {.padding = 1, .groups = 16}, false},  // depthwise
      {2, 10, 7, 7, 20, 3, 3, {.stride = 2, .padding = 1, .groups = 10}},
      {2, 5, 9, 62, 7, 3, 4, {.stride = {2, 1}}},  // by rows of pixels: two vectors, and four
      {1, 1, 9, 34, 8, 2, 9},
      {2, 8, 7, 40, 4, 2, 5, {}, false},
      {3, 64, 8, 8, 32, 1, 1, {.stride = 2}, false},
      {3, 24, 11, 10, 64, 3, 3, {.padding = 1}, false},  // the weights' gradient by tiles: an odd image
      {4, 64, 9, 8, 80, 3, 2, {.padding = {2, 1}}, false},
      {9, 31, 7, 9, 112, 3, 3, {.stride = {1, 2}, .padding = {1, 3}, .dilation = {2, 1}}, false},
      {65, 26, 2, 2, 64, 3, 3, {.padding = 1}, false},      // blocks of many images, the last one short
      {6, 40, 8, 8, 24, 3, 3, {.padding = 1}},              // Winograd's: parts of vectors on both sides
      {7, 33, 7, 8, 65, 3, 3, {.padding = 1}},              // channels that make no pairs
      {2, 24, 15, 12, 40, 3, 3, {.padding = {0, 2}}},       // halves of tiles
      {1, 26, 30, 29, 52, 3, 3, {.padding = 2}},            // several chunks, the last one short
      {50, 24, 4, 4, 64, 3, 3, {.padding = 1}, false},      // several images in a block
      {3, 24, 11, 11, 64, 3, 3, {.padding = 1}, false, 1},  // as a pooling behind wants it
      {2, 64, 9, 9, 64, 3, 3, {.padding = 1}, false, 1},
      {2, 64, 7, 7, 80, 3, 3, {.padding = 1}, false, 1},
      {2, 5, 9, 9, 10, 3, 3, {.padding = 2}, true, {2, 1}},
      {2, 7, 8, 9, 13, 3, 2, {.stride = {1, 2}, .padding = {1, 0}}, true, {1, 0}},
      {2, 24, 6, 40, 16, 3, 3, {.padding = 2, .dilation = 2}},  // two that oneDNN 2.6 gets wrong in bf16
      {2, 20, 8, 37, 5, 1, 1, {}},
  };
}

TEST(NetworkKernelsConv, MatchesNaiveLoops) {
  std::uint64_t seed = 7;
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (const ConvCase& c : conv_cases()) {
      SCOPED_TRACE(fmt::format("{} {}x{}x{}x{} to {} kernel {}x{}, seed {}", dtype, c.n, c.in, c.height,
                               c.width, c.out, c.kernel_height, c.kernel_width, seed));
      check(c, dtype, seed++);
    }
  }
}

TEST(NetworkKernelsConv, TwoThreadsAtOnceAndAgain) {
  const auto run = [] {
    for (int round = 0; round < 2; ++round) {
      std::uint64_t seed = 100;
      for (const ConvCase& c : conv_cases()) {
        check(c, DType::f32, seed++);
      }
    }
  };
  std::thread other(run);
  run();
  other.join();
}

TEST(NetworkKernelsConv, NoSamples) {
  const TensorOptions image{.format = MemoryFormat::channels_last};
  const Tensor x = empty({0, 3, 8, 8}, image), grad = empty({0, 16, 6, 6}, image);
  const Tensor weight = ones({16, 3, 3, 3}), bias = ones({16});
  Tensor out = empty_like(grad), grad_x = empty_like(x), grad_w = garbage(weight.shape(), {}),
         grad_b = garbage({16}, {});
  cpu::conv2d_forward(x, weight, bias, {}, out);
  cpu::conv2d_backward_data(grad, weight, {}, grad_x);
  cpu::conv2d_backward_weight(x, grad, {}, grad_w, grad_b);
  expect_close(grad_w, std::vector<double>(16 * 27), DType::f32, "grad_weight");
  expect_close(grad_b, std::vector<double>(16), DType::f32, "grad_bias");
}

TEST(NetworkKernelsConv, SameBitsEachTime) {
  const TensorOptions image{.dtype = DType::bf16, .format = MemoryFormat::channels_last};
  Draw draw(3);
  const Tensor x = draw.tensor({4, 24, 15, 15}, image), grad = draw.tensor({4, 40, 15, 15}, image);
  const Conv2dOptions params{.padding = 1};
  Tensor first = garbage({40, 24, 3, 3}, {}), second = garbage({40, 24, 3, 3}, {}), none;
  cpu::conv2d_backward_weight(x, grad, params, first, none);
  std::thread other([&] { cpu::conv2d_backward_weight(x, grad, params, second, none); });
  other.join();
  EXPECT_EQ(values(first), values(second));
}

}  // namespace
}  // namespace millrace
