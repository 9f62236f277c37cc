// What matmul.cpp and conv2d.cpp do with what cuBLASLt and cuDNN answer.
#include <cstdlib>
#include <gmock/gmock.h>
#include <map>

#include "autograd/ops.h"
#include "emulator.h"
#include "library_fixtures.h"
#include "tensor/gpu/arithmetic.h"
#include "tensor/kernels/conv.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/matmul.h"

namespace millrace::test {
namespace {

using testing::HasSubstr;

/// The fake's engines are nothing to keep for the user.
[[maybe_unused]] const int kNoFile = unsetenv("XDG_CACHE_HOME") + unsetenv("HOME");

Tensor product(const Tensor& a, const Tensor& b, const Tensor& bias, DType dtype) {
  Tensor out = empty({a.size(-2), b.size(-1)}, {.dtype = dtype, .device = kGpu});
  cuda::matmul(a, b, bias, out);
  return out;
}

TEST_F(CublasLt, EachOfEqualShapesAndOtherTypesHasAnAlgorithmOfItsOwn) {
  std::mt19937_64 engine = random_engine();
  const Tensor a = sample({5, 6}, DType::f32, engine), b = sample({6, 7}, DType::f32, engine);
  const std::vector<double> expected = values(matmul(a, b));  // exact in f32: eighths
  for (const auto& [factors, result] :
       std::initializer_list<std::pair<DType, DType>>{{DType::f32, DType::f32},
                                                      {DType::bf16, DType::f32},
                                                      {DType::f16, DType::f32},
                                                      {DType::bf16, DType::bf16},
                                                      {DType::f16, DType::f16}}) {
    const int before = fake_cublaslt::counts().heuristics;
    const Tensor out = product(a.to(kGpu).to(factors), b.to(kGpu).to(factors), Tensor(), result);
    EXPECT_EQ(fake_cublaslt::counts().heuristics, before + 1) << name_of(factors) << name_of(result);
    if (result == DType::f32) {
      EXPECT_EQ(values(out.to(kCpu)), expected) << name_of(factors);
    }
  }
}

TEST_F(CublasLt, TypesThatItCannotMultiplyAreRefusedWithASentence) {
  const auto x = [](DType dtype) { return ones({4, 4}, {.dtype = dtype, .device = kGpu}); };
  const auto refusal = [&](DType a, DType b, DType out) {
    return input_error([&] { product(x(a), x(b), Tensor(), out); });
  };
  EXPECT_THAT(refusal(DType::bf16, DType::f16, DType::f32),
              HasSubstr("got types bf16 and f16 for a result in f32"));
  EXPECT_THAT(refusal(DType::bf16, DType::bf16, DType::f16), HasSubstr("for a result in f16"));
  EXPECT_THAT(refusal(DType::f32, DType::f32, DType::bf16), HasSubstr("convert with to()"));
  EXPECT_THAT(refusal(DType::f32, DType::f32, DType::f64), HasSubstr("for a result in f64"));
  EXPECT_THAT(refusal(DType::i32, DType::i32, DType::i32), HasSubstr("expected a floating type on the GPU"));
}

TEST_F(CublasLt, ABiasWithoutAnAlgorithmIsAddedBehindTheProduct) {
  std::mt19937_64 engine = random_engine();
  fake_cublaslt::refuse_biases(true);
  for (const DType dtype : kFloatingTypes) {
    const Tensor a = sample({9, 8}, dtype, engine), b = sample({8, 40}, dtype, engine),
                 bias = sample({40}, DType::f32, engine);
    const Tensor expected = matmul(a.to(DType::f64), b.to(DType::f64)) + bias.to(DType::f64);
    for (int again = 0; again < 2; ++again) {  // what is kept for the shape knows it
      const Tensor out = product(a.to(kGpu), b.to(kGpu), bias.to(kGpu), dtype);
      expect_close(out, expected.to(dtype), rounded(dtype, 1), name_of(dtype));  // the product's rounding
    }
  }
}

/// An f32 gradient of half factors may have a bias, in f32.
TEST_F(CublasLt, ABiasIsOfTheResultsType) {
  std::mt19937_64 engine = random_engine();
  const Tensor a = sample({3, 8}, DType::bf16, engine), b = sample({8, 4}, DType::bf16, engine),
               bias = sample({4}, DType::f32, engine) + 0x1p-12;
  const Tensor expected = matmul(a.to(DType::f32), b.to(DType::f32)) + bias;
  EXPECT_EQ(values(product(a.to(kGpu), b.to(kGpu), bias.to(kGpu), DType::f32).to(kCpu)), values(expected));
}

/// As in a training in bf16 or f16: its gradients are those of f32.
TEST_F(CublasLt, LinearMakesItsF32GradientsOfHalfMatrices) {
  std::mt19937_64 engine = random_engine();
  const Tensor x = sample({6, 9}, DType::f32, engine), w = sample({4, 9}, DType::f32, engine),
               b = sample({4}, DType::f32, engine), grad = sample({6, 4}, DType::f32, engine);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    Variable input(x.to(kGpu).to(dtype), true), weight(w.to(kGpu), true), bias(b.to(kGpu), true);
    linear(input, weight, bias).backward(grad.to(kGpu).to(dtype));
    EXPECT_EQ(weight.grad().dtype(), DType::f32);
    EXPECT_EQ(values(weight.grad().to(kCpu)), values(matmul(grad.t(), x))) << name_of(dtype);
    EXPECT_EQ(values(bias.grad().to(kCpu)), values(sum(grad, {.dims = {0}}))) << name_of(dtype);
    EXPECT_EQ(values(input.grad().to(kCpu)), values(matmul(grad, w).to(dtype))) << name_of(dtype);
  }
}

/// A convolution whose shape no other test has, so that an engine is chosen for it.
void convolve(std::int64_t size) {
  const Tensor x = ones({1, 1, size, size}, {.device = kGpu}), weight = ones({1, 1, 3, 3}, {.device = kGpu});
  Tensor out = empty({1, 1, size - 2, size - 2}, {.device = kGpu});
  cuda::conv2d_forward(x, weight, Tensor(), {}, out);
}

/// The fake's engines run as the test says, by number.
TEST_F(CudnnExecution, OneThatDoesNotRunIsLeftOut) {
  fake_cudnn::name_all_engines(true);
  std::map<int, int> runs;
  fake_cudnn::on_run([&](int engine) {
    ++runs[engine];
    return engine == 0 ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
  });
  convolve(11);
  EXPECT_EQ(runs[0], 2) << "once a round";
  EXPECT_EQ(runs[4] + runs[6], 2 * 2 * 5 + 1);
}

TEST_F(CudnnExecution, OneWithoutMemoryIsLeftOut) {
  fake_cudnn::name_all_engines(true);
  std::map<int, int> runs;
  fake_cudnn::on_run([&](int engine) {
    if (engine == 0 && ++runs[engine] == 5) {  // engine 4's workspace is next; asked for twice
      emulator::fail("cudaMallocAsync", cudaErrorMemoryAllocation, 1, 2);
    }
    return CUDNN_STATUS_SUCCESS;
  });
  EXPECT_NO_THROW(convolve(12));
}

/// As from a kernel that failed: the device may be lost, and whoever runs on must hear of it.
TEST_F(CudnnExecution, AnErrorOfTheDeviceIsNoLackOfMemory) {
  fake_cudnn::name_all_engines(true);
  std::map<int, int> runs;
  for (const char* call : {"cudaEventRecord", "cudaEventSynchronize", "cudaMallocAsync"}) {
    fake_cudnn::on_run([&](int) {
      if (runs[0]++ == 0) {
        emulator::fail(call, cudaErrorIllegalAddress);
      }
      return CUDNN_STATUS_SUCCESS;
    });
    runs.clear();
    try {
      convolve(13);
      ADD_FAILURE() << call << ": nothing was told";
    } catch (const MachineError& error) {
      EXPECT_THAT(error.what(), HasSubstr("cudaErrorIllegalAddress")) << call;
    }
    emulator::fail("", cudaSuccess);
  }
}

/// Also where the stand-ins of what is timed are made.
TEST_F(CudnnExecution, OnlyAMissingCopyEndsTheTiming) {
  fake_cudnn::name_all_engines(true);
  convolve(14);  // weights are converted once
  emulator::fail("cudaMemsetAsync", cudaErrorIllegalAddress);
  EXPECT_THROW(convolve(15), MachineError);
  emulator::fail("", cudaSuccess);
}

/// Half of the epilogues with a bias have no algorithm, by a seed.
TEST_F(CublasLt, BiasesRefusedByChanceAreAddedBehindTheProduct) {
  std::mt19937_64 engine = random_engine();
  fakes::refusing_seed() = engine() | 1;
  int asked = 0, products = 0;
  for (std::int64_t size = 1; size <= 40; ++size) {
    const DType dtype = kFloatingTypes[size % 4];
    const Tensor a = sample({3, size}, dtype, engine), b = sample({size, 5}, dtype, engine),
                 bias = sample({5}, DType::f32, engine);
    const int before = fake_cublaslt::counts().heuristics;
    const Tensor out = product(a.to(kGpu), b.to(kGpu), bias.to(kGpu), dtype);
    asked += fake_cublaslt::counts().heuristics - before;
    ++products;
    const Tensor expected = matmul(a.to(DType::f64), b.to(DType::f64)) + bias.to(DType::f64);
    expect_close(out, expected.to(dtype), rounded(dtype, 1), name_of(dtype));
  }
  EXPECT_GT(asked, products) << "none was refused, seed " << seed();
  EXPECT_LT(asked, 2 * products) << "all were refused, seed " << seed();
}

/// A third of the plans are not made and a third of the others do not run, by a seed.
TEST_F(CudnnExecution, EnginesRefusedByChanceAreReplaced) {
  std::mt19937_64 engine = random_engine();
  fakes::refusing_seed() = engine() | 1;
  const int before = fake_cudnn::refusals();
  std::int64_t size = 20;  // no other test has these
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const GpuArithmetic arithmetic :
         {GpuArithmetic{}, GpuArithmetic{.tf32 = true}, GpuArithmetic{.deterministic = true}}) {
      set_gpu_arithmetic(arithmetic);
      for (int again = 0; again < 3; ++again) {
        const TensorOptions image{dtype, kCpu, MemoryFormat::channels_last};
        const auto drawn = [&](const Shape& shape) { return sample(shape, DType::f32, engine); };
        const std::int64_t side = size++;
        const Tensor x = drawn({1, 2, 4, side}), weight = drawn({3, 2, 3, 3}),
                     grad = drawn({1, 3, 2, side - 2});
        const auto moved_image = [&](const Tensor& one) {
          Tensor made = empty(one.shape(), image);
          made.copy_(one);
          return made.to(kGpu);
        };
        const auto results = [&](Device device, const Tensor& x, const Tensor& weight, const Tensor& grad) {
          const TensorOptions there{x.dtype(), device, MemoryFormat::channels_last};
          std::vector<Tensor> made = {empty(grad.shape(), there), empty(x.shape(), there),
                                      empty(weight.shape(), {.device = device})};
          Tensor none;
          MILLRACE_LAUNCH(device, conv2d_forward, x, weight, Tensor(), Conv2dOptions{}, made[0]);
          MILLRACE_LAUNCH(device, conv2d_backward_data, grad, weight, Conv2dOptions{}, made[1]);
          MILLRACE_LAUNCH(device, conv2d_backward_weight, x, grad, Conv2dOptions{}, made[2], none);
          return made;
        };
        const auto found = results(kGpu, moved_image(x), weight.to(kGpu), moved_image(grad));
        const auto plain = [](const Tensor& one) { return one.contiguous(MemoryFormat::channels_last); };
        const auto expected = results(kCpu, plain(x), weight, plain(grad));
        for (std::size_t i = 0; i < found.size(); ++i) {
          // Sums of eighths are exact; the engines round weights' gradients as well.
          expect_close(found[i].to(dtype), expected[i].to(dtype), 0, name_of(dtype));
        }
      }
    }
  }
  set_gpu_arithmetic({});
  EXPECT_GT(fake_cudnn::refusals(), before) << "none was refused, seed " << seed();
}

}  // namespace
}  // namespace millrace::test
