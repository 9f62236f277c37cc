#include "tensor/kernels/elementwise.h"

#include <functional>

#include "on_cuda.h"
#include "tensor/kernels/launch.h"
#include "tensor/ops/random.h"

namespace millrace::test {
namespace {

class CudaElementwise : public CudaTest {
 protected:
  /// A view of random numbers: dense in either order, with gaps, transposed, or expanded from fewer.
  Tensor operand(const Shape& shape, DType dtype, bool written = false) {
    const int kind = std::uniform_int_distribution<int>(0, written ? 3 : 5)(engine_);
    Shape larger = shape;
    if (kind == 1 && shape.size() == 4) {
      return sample(shape, dtype, engine_, MemoryFormat::channels_last);
    }
    if (kind == 2 && shape.size() > 0) {  // every second element, from the second on
      larger[shape.size() - 1] = 2 * shape[-1] + 1;
      return sample(larger, dtype, engine_).slice(-1, 1, larger[-1], 2);
    }
    if (kind == 3 && shape.size() > 1) {
      std::swap(larger[0], larger[shape.size() - 1]);
      return sample(larger, dtype, engine_).transpose(0, -1);
    }
    if (kind == 4 && shape.size() > 0) {  // one for all, or one a channel
      std::fill(larger.begin(), larger.end(), 1);
      larger[shape.size() > 1 ? 1 : 0] = shape[shape.size() > 1 ? 1 : 0];
      return sample(larger, dtype, engine_).expand(shape);
    }
    return kind == 5 ? sample({}, dtype, engine_).expand(shape) : sample(shape, dtype, engine_);
  }

  /// Runs `f(device, inputs, out)` on both devices, for all kinds of views, and compares.
  using Run = std::function<void(Device, const std::vector<Tensor>&, Tensor&)>;
  void compare_devices(const char* what, const std::vector<DType>& types, DType result, double tolerance,
                       const Run& run) {
    const Shape shapes[] = {{},           {1},           {300},  {33, 12},
                            {2, 3, 8, 9}, {4, 16, 3, 3}, {0, 4}, {2, 3, 2, 1, 3, 2}};
    for (const Shape& shape : shapes) {
      for (int round = 0; round < 3; ++round) {
        std::vector<Tensor> here, there;
        for (DType dtype : types) {
          here.push_back(operand(shape, dtype));
          there.push_back(moved(here.back()));
        }
        Tensor expected = operand(shape, result, true);
        Tensor got = moved(expected);
        run(kCpu, here, expected);
        run(kGpu, there, got);
        expect_close(got, expected, tolerance, fmt::format("{} of {} to {}", what, shape, result));
        if (HasFatalFailure()) {
          return;
        }
      }
    }
  }

  std::mt19937_64 engine_ = random_engine();
};

/// Arithmetic of two numbers is rounded once by IEEE's rules, functions are as near as their authors made
/// them.
double function_bound(DType dtype, int besides = 0) {
  return is_floating(dtype) ? rounded(computed_in(dtype), kFunction + besides) : 0;
}

TEST_F(CudaElementwise, BinaryOperations) {
  for (DType dtype : kAllTypes) {
    for (BinaryOp op : {BinaryOp::add, BinaryOp::sub, BinaryOp::mul, BinaryOp::div, BinaryOp::maximum,
                        BinaryOp::minimum, BinaryOp::pow, BinaryOp::rsub, BinaryOp::rdiv}) {
      const double bound = op == BinaryOp::pow ? function_bound(dtype) : 0;
      compare_devices("binary", {dtype, dtype}, dtype, bound,
                      [&](Device device, const auto& in, Tensor& out) {
                        MILLRACE_LAUNCH(device, binary, op, in[0], in[1], out);
                      });
      for (double number : {2.0, 0.5, 3.0}) {
        compare_devices("number", {dtype}, dtype, bound, [&](Device device, const auto& in, Tensor& out) {
          MILLRACE_LAUNCH(device, binary_scalar, op, in[0], number, out);
        });
      }
    }
    compare_devices("add_scaled", {dtype, dtype}, dtype, 0, [&](Device device, const auto& in, Tensor& out) {
      MILLRACE_LAUNCH(device, add_scaled, in[0], in[1], 3, out);
    });
    compare_devices("clamp", {dtype}, dtype, 0, [&](Device device, const auto& in, Tensor& out) {
      MILLRACE_LAUNCH(device, clamp, in[0], -1.5, 300, out);
    });
  }
}

TEST_F(CudaElementwise, ComparisonsAndChoices) {
  for (DType dtype : kAllTypes) {
    for (CompareOp op : {CompareOp::equal, CompareOp::not_equal, CompareOp::less, CompareOp::less_equal,
                         CompareOp::greater, CompareOp::greater_equal}) {
      compare_devices("compare", {dtype, dtype}, DType::u8, 0,
                      [&](Device device, const auto& in, Tensor& out) {
                        MILLRACE_LAUNCH(device, compare, op, in[0], in[1], out);
                      });
    }
    compare_devices("where", {DType::u8, dtype, dtype}, dtype, 0,
                    [&](Device device, const auto& in, Tensor& out) {
                      MILLRACE_LAUNCH(device, where, in[0], in[1], in[2], out);
                    });
  }
}

TEST_F(CudaElementwise, CopiesConvertAndFill) {
  for (DType from : kAllTypes) {
    for (DType to : kAllTypes) {
      compare_devices("copy", {from}, to, 0, [&](Device device, const auto& in, Tensor& out) {
        MILLRACE_LAUNCH(device, copy, in[0], out);
      });
    }
    for (double value : {0.0, 1.5, -3.0, 1000.0}) {
      compare_devices("fill", {}, from, 0, [&](Device device, const auto&, Tensor& out) {
        MILLRACE_LAUNCH(device, fill, out, value);
      });
    }
  }
}

TEST_F(CudaElementwise, UnaryOperationsAndTheirGradients) {
  for (DType dtype : kAllTypes) {
    for (UnaryOp op : {UnaryOp::exp, UnaryOp::log, UnaryOp::sqrt, UnaryOp::tanh, UnaryOp::abs, UnaryOp::neg,
                       UnaryOp::sigmoid, UnaryOp::relu, UnaryOp::gelu}) {
      const bool keeps = op == UnaryOp::abs || op == UnaryOp::neg || op == UnaryOp::relu;
      if (!is_floating(dtype) && !keeps) {
        continue;
      }
      compare_devices("unary", {dtype}, dtype, keeps ? 0 : function_bound(dtype, 4),
                      [&](Device device, const auto& in, Tensor& out) {
                        MILLRACE_LAUNCH(device, unary, op, in[0], out);
                      });
      if (is_floating(dtype)) {
        compare_devices("gradient", {dtype, dtype, dtype}, dtype, keeps ? 0 : function_bound(dtype, 4),
                        [&](Device device, const auto& in, Tensor& out) {
                          MILLRACE_LAUNCH(device, unary_backward, op, in[0], in[1], in[2], out);
                        });
      }
    }
  }
}

TEST_F(CudaElementwise, TransposesLargerThanATile) {
  for (DType dtype : {DType::u8, DType::bf16, DType::f32, DType::f64}) {
    // The last has more tiles than there are blocks.
    for (const Shape& shape :
         {Shape{2, 33, 65, 3}, Shape{1, 8, 40, 41}, Shape{3, 100, 9, 9}, Shape{1100, 9, 8, 5}}) {
      const Tensor x = sample(shape, dtype, engine_);
      expect_close(moved(x).contiguous(MemoryFormat::channels_last), x, 0, "to channels-last");
      const Tensor image = sample(shape, dtype, engine_, MemoryFormat::channels_last);
      expect_close(moved(image).contiguous(), image, 0, "from channels-last");
      const Tensor part = image.narrow(2, 1, 7);
      expect_close(moved(part).contiguous(), part, 0, "from a part");
    }
  }
}

TEST_F(CudaElementwise, InPlaceOnParts) {
  Tensor here = sample({5, 40}, DType::f32, engine_);
  Tensor there = here.to(kGpu);
  here.narrow(1, 3, 20).mul_(3).add_(here.narrow(1, 3, 20));
  there.narrow(1, 3, 20).mul_(3).add_(there.narrow(1, 3, 20));
  expect_close(there, here, 0, "in place");
}

TEST_F(CudaElementwise, ArangeAndRandomNumbersAreTheCpus) {
  for (DType dtype : kAllTypes) {
    for (std::int64_t count : {0, 1, 5, 4099}) {
      expect_close(arange(3, 3 + 2 * static_cast<double>(count), 2, {.dtype = dtype, .device = kGpu}),
                   arange(3, 3 + 2 * static_cast<double>(count), 2, {.dtype = dtype}), 0, "arange");
      if (is_floating(dtype)) {
        Generator a(seed()), b(seed());
        expect_close(rand({count}, a, {.dtype = dtype, .device = kGpu}), rand({count}, b, {.dtype = dtype}),
                     0, "rand");
        expect_close(randn({count}, a, {.dtype = dtype, .device = kGpu}), randn({count}, b, {.dtype = dtype}),
                     rounded(DType::f32, kFunction + 2), "randn");
        EXPECT_EQ(a.next(), b.next());
      }
    }
  }
}

TEST_F(CudaElementwise, SpecialNumbers) {
  const Tensor special = tensor({0.0, -0.0, INFINITY, -INFINITY, NAN, 1e-40, 3e38, -88.0, 100.0, -5.5});
  for (DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
    const Tensor x = special.to(dtype), y = x.to(kGpu);
    const double tolerance = function_bound(dtype, 4);
    expect_close(special.to(kGpu).to(dtype), x, 0, "to");
    expect_close(exp(y), exp(x), tolerance, "exp");
    expect_close(tanh(y), tanh(x), tolerance, "tanh");
    expect_close(maximum(y, 0 * y), maximum(x, 0 * x), 0, "maximum");
    expect_close(clamp(y, -1, 1), clamp(x, -1, 1), 0, "clamp");
  }
}

}  // namespace
}  // namespace millrace::test
