#include "on_cuda.h"
#include "tensor/cuda/conv/conv2d_bias.h"
#include "tensor/cuda/conv/weights.h"
#include "tensor/gpu/arithmetic.h"
#include "tensor/gpu/engine_choices.h"
#include "tensor/kernels/conv.h"
#include "tensor/kernels/launch.h"
#include "tests/tensor/kernels/support.h"

namespace millrace {
namespace {

using test::kGpu;

class CudaConv2d : public test::CudaTest {
 protected:
  void TearDown() override { set_gpu_arithmetic({}); }
};

struct Conv2dCase {
  Shape x, weight;
  Conv2dOptions params = {};
};

Shape out_shape(const Conv2dCase& c) {
  const auto size = [](std::int64_t x, std::int64_t w, std::int64_t stride, std::int64_t padding,
                       std::int64_t dilation) {
    return (x + 2 * padding - dilation * (w - 1) - 1) / stride + 1;
  };
  const Conv2dOptions& p = c.params;
  return {c.x[0], c.weight[0],
          size(c.x[2], c.weight[2], p.stride.height, p.padding.height, p.dilation.height),
          size(c.x[3], c.weight[3], p.stride.width, p.padding.width, p.dilation.width)};
}

struct Results {
  Tensor out, grad_x, grad_weight, grad_bias;
};

/// All three directions on one device, in `dtype` there; the results come back to the CPU.
Results compute(const Conv2dCase& c, Device device, DType dtype, std::uint64_t seed) {
  Draw draw(seed);
  const auto image = [&](const Shape& shape) {
    return draw.tensor(shape, {.dtype = dtype, .format = MemoryFormat::channels_last}).to(device);
  };
  const Tensor x = image(c.x), grad = image(out_shape(c));
  const Tensor weight = draw.tensor(c.weight, {}).to(device);
  const Tensor bias = draw.tensor({c.weight[0]}, {}).to(device);
  const auto activations = [&](const Shape& shape) {
    return empty(shape, {dtype, device, MemoryFormat::channels_last});
  };
  Results r{activations(out_shape(c)), activations(c.x), empty(c.weight, {.device = device}),
            empty(bias.shape(), {.device = device})};
  MILLRACE_LAUNCH(device, conv2d_forward, x, weight, bias, c.params, r.out);
  MILLRACE_LAUNCH(device, conv2d_backward_data, grad, weight, c.params, r.grad_x);
  MILLRACE_LAUNCH(device, conv2d_backward_weight, x, grad, c.params, r.grad_weight, r.grad_bias);
  return {r.out.to(kCpu), r.grad_x.to(kCpu), r.grad_weight.to(kCpu), r.grad_bias.to(kCpu)};
}

const Conv2dCase kConv2dCases[] = {
    {{4, 3, 9, 9}, {8, 3, 3, 3}, {.padding = 1}},
    {{2, 16, 8, 8}, {24, 16, 3, 3}, {.stride = 2, .padding = 1}},
    {{3, 32, 6, 5}, {16, 32, 1, 1}, {.stride = 2}},
    {{1, 5, 7, 11}, {3, 5, 3, 2}, {.stride = {2, 1}, .padding = {0, 1}}},
    {{2, 12, 9, 9}, {18, 4, 3, 3}, {.padding = 1, .groups = 3}},
    {{2, 8, 9, 9}, {8, 1, 3, 3}, {.padding = 1, .groups = 8}},
    {{2, 16, 19, 19}, {8, 16, 3, 3}, {.padding = {2, 4}, .dilation = {2, 3}}},
    {{0, 3, 9, 9}, {8, 3, 3, 3}, {.padding = 1}},
};

TEST_F(CudaConv2d, all_directions_agree_with_the_cpu) {
  const auto expect_agreement = [](const Conv2dCase& c, DType dtype, DType factors) {
    SCOPED_TRACE(fmt::format("{} x {} weight {}", dtype, c.x, c.weight));
    const Results cpu = compute(c, kCpu, DType::f32, 7), gpu = compute(c, kGpu, dtype, 7);
    const Shape out = out_shape(c);
    const std::int64_t window = c.weight[2] * c.weight[3], places = out[0] * out[2] * out[3];
    const auto expect = [&](const Tensor& got, const Tensor& expected, std::int64_t terms, const char* what) {
      expect_within(got, values(expected), test::product_bound(factors, terms), what);
    };
    expect(gpu.out, cpu.out, window * c.weight[1], "out");
    expect(gpu.grad_x, cpu.grad_x, window * c.weight[0] / c.params.groups, "grad_x");
    expect(gpu.grad_weight, cpu.grad_weight, places, "grad_weight");
    expect(gpu.grad_bias, cpu.grad_bias, places, "grad_bias");
  };
  for (const Conv2dCase& c : kConv2dCases) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      expect_agreement(c, dtype, dtype);
    }
    set_gpu_arithmetic({.tf32 = true});
    expect_agreement(c, DType::f32, DType::f16);  // TF32 has f16's mantissa
    set_gpu_arithmetic({});
  }
}

TEST_F(CudaConv2d, deterministic_runs_give_the_same_bits) {
  set_gpu_arithmetic({.deterministic = true});
  const Conv2dCase c{{64, 16, 16, 16}, {32, 16, 3, 3}, {.padding = 1}};
  const Results once = compute(c, kGpu, DType::bf16, 3), again = compute(c, kGpu, DType::bf16, 3);
  EXPECT_EQ(values(once.out), values(again.out));
  EXPECT_EQ(values(once.grad_x), values(again.grad_x));
  EXPECT_EQ(values(once.grad_weight), values(again.grad_weight));
}

TEST_F(CudaConv2d, what_f16_cannot_hold_is_infinite) {
  const Tensor x = full({1, 64, 3, 3}, 100, {DType::f16, kGpu, MemoryFormat::channels_last});
  const Tensor weight = full({8, 64, 3, 3}, 100, {.device = kGpu});
  Tensor out = empty({1, 8, 1, 1}, {DType::f16, kGpu, MemoryFormat::channels_last});
  MILLRACE_LAUNCH(kGpu, conv2d_forward, x, weight, Tensor(), Conv2dOptions{}, out);
  for (const double value : values(out.to(kCpu))) {
    EXPECT_EQ(value, std::numeric_limits<double>::infinity());
  }
}

TEST_F(CudaConv2d, images_may_begin_anywhere) {
  Draw draw(5);
  const Tensor x = draw.tensor({3, 3, 5, 5}, {.dtype = DType::bf16, .format = MemoryFormat::channels_last});
  const Tensor weight = draw.tensor({4, 3, 3, 3}, {});
  const auto last_image = [&](Device device) {
    Tensor out = empty({1, 4, 3, 3}, {DType::bf16, device, MemoryFormat::channels_last});
    MILLRACE_LAUNCH(device, conv2d_forward, x.to(device).narrow(0, 1, 1), weight.to(device), Tensor(),
                    Conv2dOptions{}, out);
    return out.to(kCpu);
  };
  expect_within(last_image(kGpu), values(last_image(kCpu)), test::product_bound(DType::bf16, 3 * 3 * 3),
                "out");
}

TEST_F(CudaConv2d, imported_choices_are_used) {
  const Conv2dCase c{{8, 16, 8, 8}, {16, 16, 3, 3}, {.padding = 1}};
  const Results before = compute(c, kGpu, DType::f32, 3);
  engine_choices().import(engine_choices().bytes());
  const Results after = compute(c, kGpu, DType::f32, 3);
  EXPECT_EQ(values(before.out), values(after.out));
}

TEST_F(CudaConv2d, weights_are_converted_once_and_follow_changes) {
  if constexpr (kWithCuda) {
    Draw draw(9);
    const Tensor flat = draw.tensor({200}, {}).to(kGpu);
    Tensor weight = flat.narrow(0, 8, 96).view({8, 3, 2, 2}).with_own_version();
    const auto converted = [&](DType dtype) -> const Tensor& {
      const Tensor& made = cuda::weights_for_engines(weight, dtype);
      EXPECT_EQ(made.dtype(), dtype);
      EXPECT_TRUE(made.is_contiguous(MemoryFormat::channels_last));
      EXPECT_EQ(values(made.to(kCpu)), values(weight.to(kCpu).to(dtype)));
      return made;
    };
    const std::byte* const place = converted(DType::bf16).raw();
    const auto version = converted(DType::bf16).storage()->version();
    EXPECT_EQ(converted(DType::bf16).raw(), place);
    EXPECT_EQ(converted(DType::bf16).storage()->version(), version);
    EXPECT_NE(converted(DType::f32).raw(), place);
    weight.mul_(2);
    EXPECT_EQ(converted(DType::bf16).raw(), place);
    Tensor whole = flat;
    whole.mul_(3);  // as a broadcast of all parameters does
    converted(DType::bf16);
    for (int i = 0; i < 3; ++i) {  // storages that come and go may have one address
      weight = draw.tensor({8, 3, 2, 2}, {}).to(kGpu);
      converted(DType::f16);
    }
  }
}

TEST_F(CudaConv2d, bias_is_added_to_each_place) {
  if constexpr (kWithCuda) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      for (const std::int64_t channels : {1, 3, 8, 24}) {
        Draw draw(11);
        const TensorOptions options{.dtype = dtype, .format = MemoryFormat::channels_last};
        const Tensor x = draw.tensor({2, channels, 3, 5}, options), bias = draw.tensor({channels}, {});
        Tensor out = x.to(kGpu);
        cuda::add_bias(bias.to(kGpu), out);
        Tensor expected = x.to(DType::f32);
        expected.add_(bias.view({1, channels, 1, 1}));
        EXPECT_EQ(values(out.to(kCpu)), values(expected.to(dtype))) << name_of(dtype) << " " << channels;
      }
    }
  }
}

}  // namespace
}  // namespace millrace
