// A convolution with its max pooling gives the bits of the one behind the other, in one pass or in two.
#include <cmath>
#include <gtest/gtest.h>
#include <limits>

#include "autograd/function.h"
#include "autograd/ops.h"
#include "tensor/cpu/words.h"
#include "tensor/kernels/conv.h"
#include "tensor/ops/random.h"

namespace millrace {
namespace {

struct Layer {
  Shape x, weight;
  Conv2dOptions params;
  bool f32_in_one_pass, bf16_in_one_pass;  ///< With AVX-512 (for bf16 its extension, and without a bias).
};

std::vector<Layer> layers() {
  return {
      {{2, 24, 31, 31}, {64, 24, 3, 3}, {.padding = 1}, true, true},  // airbench94's, in smaller batches
      {{3, 64, 15, 15}, {256, 64, 3, 3}, {.padding = 1}, true, true},
      {{17, 256, 7, 7}, {256, 256, 3, 3}, {.padding = 1}, true, true},
      {{5, 40, 12, 22}, {80, 40, 3, 3}, {.padding = 1}, true, true},   // blocks and panels with places over
      {{4, 33, 16, 14}, {72, 33, 3, 3}, {.padding = 1}, true, false},  // vectors too
      {{3, 26, 16, 14}, {65, 26, 3, 3}, {.padding = 1}, true, false},
      {{3, 24, 16, 18}, {64, 24, 3, 3}, {}, true, true},
      {{3, 24, 19, 16}, {64, 24, 3, 3}, {}, true, true},  // pixels, not padding, behind what is pooled
      {{3, 24, 14, 18}, {64, 24, 3, 3}, {.padding = 2}, true, true},
      {{3, 24, 14, 16}, {64, 24, 3, 3}, {.padding = {0, 3}}, true, true},
      {{2, 3, 8, 8}, {5, 3, 3, 3}, {.padding = 1}, false, false},
      {{2, 3, 8, 7}, {5, 3, 3, 3}, {.padding = 1}, false, false},
      {{2, 3, 9, 9}, {5, 3, 3, 3}, {}, false, false},
      {{2, 3, 9, 9}, {5, 3, 3, 3}, {.stride = 2, .padding = 1}, false, false},
      {{2, 24, 31, 31}, {64, 24, 3, 3}, {.padding = 2, .dilation = 2}, false, false},
      {{0, 24, 31, 31}, {64, 24, 3, 3}, {.padding = 1}, false, false},
      {{0, 3, 9, 9}, {5, 3, 3, 3}, {}, false, false},
  };
}

struct ConvolutionResults {
  std::string operation;
  Shape convolved;
  Tensor out, grad_x, grad_weight, grad_bias;
};

/// With `together` as one operation, else as two.
ConvolutionResults run(const Layer& layer, const Tensor& x_data, const Tensor& weight_data,
                       const Tensor& bias_data, bool together) {
  const Variable x(x_data.clone(), true), weight(weight_data.clone(), true);
  const Variable bias = bias_data.defined() ? Variable(bias_data.clone(), true) : Variable();
  Conv2dOptions params = layer.params;
  params.max_pool = together;
  const Variable convolved = conv2d(x, weight, bias, params);
  const Variable pooled = together ? convolved : max_pool2d(convolved, {.kernel = 2});
  sum(pooled * pooled).backward();
  return {std::string(convolved.creator()->name()), convolved.shape(), pooled.data(), x.grad(), weight.grad(),
          bias.defined() ? bias.grad() : Tensor()};
}

/// No further apart than a share of the largest value.
void expect_same(const Tensor& got, const Tensor& expected, double tolerance, const char* what) {
  ASSERT_EQ(got.shape(), expected.shape()) << what;
  if (expected.numel() == 0) {
    return;
  }
  const Tensor all = expected.to(DType::f32);
  EXPECT_LE(max(abs(got.to(DType::f32) - all)).item(), tolerance * max(abs(all)).item()) << what;
}

void expect_same(const ConvolutionResults& got, const ConvolutionResults& expected, double tolerance) {
  EXPECT_TRUE(expected.out.numel() == 0 || max(abs(expected.grad_weight)).item() > 0);
  expect_same(got.out, expected.out, tolerance, "out");
  expect_same(got.grad_x, expected.grad_x, tolerance, "grad_x");
  expect_same(got.grad_weight, expected.grad_weight, tolerance, "grad_weight");
  if (expected.grad_bias.defined()) {
    expect_same(got.grad_bias, expected.grad_bias, tolerance, "grad_bias");
  }
}

TEST(PooledConv2d, GivesWhatTheTwoGive) {
  Generator generator(11);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const Layer& layer : layers()) {
      for (const bool biased : {false, true}) {
        SCOPED_TRACE(fmt::format("{} input {}, weight {}, bias {}", dtype, layer.x, layer.weight, biased));
        const Tensor x = randn(layer.x, generator).to(dtype), weight = randn(layer.weight, generator);
        const Tensor bias = biased ? randn({layer.weight[0]}, generator) : Tensor();
        const ConvolutionResults got = run(layer, x, weight, bias, true),
                                 expected = run(layer, x, weight, bias, false);
        // Where the two compute a row more it may be another kernel's, and sums have another order.
        const bool is_odd = expected.convolved[2] % 2 != 0 || expected.convolved[3] % 2 != 0;
        expect_same(got, expected, !is_odd ? 0 : dtype == DType::f32 ? 1e-5 : 2e-2);
        const Shape pooled = got.out.shape();
        const bool can = cpu::conv2d_pools(dtype, layer.x, layer.weight, biased, layer.params, pooled);
        EXPECT_EQ(got.operation, can ? "conv2d_max_pool2d" : "max_pool2d");
#if defined(__AVX512F__)
        const bool bf16_too = cpu::channels::kMultipliesPairs && layer.bf16_in_one_pass && !biased;
        EXPECT_EQ(can, dtype == DType::f32 ? layer.f32_in_one_pass : bf16_too);
#endif
      }
    }
  }
}

TEST(PooledConv2d, TakesTheFirstOfEqualsAndPassesOnWhatIsNoNumber) {
  constexpr std::int64_t kChannels = 64, kSide = 32;
  const Variable weight(zeros({kChannels, kChannels, 3, 3}), true);
  for (std::int64_t c = 0; c < kChannels; ++c) {
    weight.data().data<float>()[(c * kChannels + c) * 9 + 4] = 1;  // the convolution's result is its input
  }
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor ones_and_one = ones({2, kChannels, kSide, kSide}, {.format = MemoryFormat::channels_last});
    ones_and_one.data<float>()[kChannels * (8 * kSide + 9)] = std::numeric_limits<float>::quiet_NaN();
    const Variable x(ones_and_one.to(dtype), true);
    const Variable pooled = conv2d(x, weight, {.padding = 1, .max_pool = true});
    sum(pooled).backward();
    for (std::int64_t image = 0; image < 2; ++image) {
      for (std::int64_t h = 0; h < kSide / 2; ++h) {
        for (std::int64_t w = 0; w < kSide / 2; ++w) {
          SCOPED_TRACE(fmt::format("{} image {}, window {}, {}", dtype, image, h, w));
          const double largest = pooled.data()[image][1].select(0, h).select(0, w).item();
          if (image == 0 && (h == 3 || h == 4) && (w == 4 || w == 5)) {  // 3x3 reaches them
            EXPECT_TRUE(std::isnan(largest));
            continue;
          }
          EXPECT_EQ(largest, 1);
          for (std::int64_t place = 0; place < 4; ++place) {
            const Tensor row = x.grad()[image][1].select(0, 2 * h + place / 2);
            EXPECT_EQ(row.select(0, 2 * w + place % 2).item(), place == 0 ? 1 : 0);
          }
        }
      }
    }
  }
}

TEST(PooledConv2d, InTwoPassesLeavesOutWhatThePoolingWould) {
  struct Part {
    Shape x, computed;
    Conv2dOptions params;
  };
  for (const Part& part :
       {Part{{2, 3, 8, 7}, {2, 5, 8, 6}, {.padding = 1, .max_pool = true}},
        Part{{2, 3, 9, 9}, {2, 5, 7, 7}, {.max_pool = true}},  // no padding lies there
        Part{{2, 3, 9, 9}, {2, 5, 5, 5}, {.stride = 2, .padding = 1, .max_pool = true}},
        Part{{1, 3, 11, 10}, {1, 5, 10, 10}, {.padding = 2, .dilation = 2, .max_pool = true}}}) {
    const Variable weight(ones({5, 3, 3, 3}), true);
    const Variable pooled = conv2d(Variable(ones(part.x)), weight, part.params);
    ASSERT_EQ(pooled.creator()->name(), "max_pool2d");
    EXPECT_EQ(pooled.creator()->previous_functions()[0]->shape(), part.computed);
  }
}

TEST(PooledConv2d, TrainsAWeightWhoseInputIsGiven) {
  Generator generator(4);
  const Tensor x = randn({2, 24, 30, 30}, generator), values = randn({64, 24, 3, 3}, generator);
  const Variable weight(values.clone(), true), apart(values.clone(), true);
  sum(conv2d(Variable(x), weight, {.padding = 1, .max_pool = true})).backward();
  sum(max_pool2d(conv2d(Variable(x), apart, {.padding = 1}), {.kernel = 2})).backward();
  expect_same(weight.grad(), apart.grad(), 0, "grad_weight");
}

TEST(PooledConv2d, TrainsABiasWhoseWeightIsFrozen) {
  Generator generator(3);
  const Variable x(randn({2, 24, 31, 31}, generator)), weight(randn({64, 24, 3, 3}, generator));
  const Variable bias(zeros({64}), true);
  sum(conv2d(x, weight, bias, {.padding = 1, .max_pool = true})).backward();
  EXPECT_LE(max(abs(bias.grad() - full({64}, 2 * 15 * 15))).item(), 1e-2);
}

}  // namespace
}  // namespace millrace
