// What matmul.cpp and conv2d.cpp ask of cuBLASLt and cuDNN, which are fakes here.
#include <cstdlib>
#include <gmock/gmock.h>
#include <map>

#include "autograd/ops.h"
#include "emulator.h"
#include "fake_cublaslt.h"
#include "fake_cudnn.h"
#include "tensor/kernels.h"
#include "tests/tensor/on_cuda.h"

namespace millrace::test {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

/// The fake's engines are nothing to keep for the user.
[[maybe_unused]] const int kNoFile = unsetenv("XDG_CACHE_HOME") + unsetenv("HOME");

Tensor product(const Tensor& a, const Tensor& b, const Tensor& bias, DType dtype) {
  Tensor out = empty({a.size(-2), b.size(-1)}, {.dtype = dtype, .device = kGpu});
  cuda::matmul(a, b, bias, out);
  return out;
}

/// After every test: none read beyond its memory.
class CudaMatmulCalls : public CudaTest {
 protected:
  void TearDown() override {
    fake_cublaslt::refuse_biases(false);
    EXPECT_THAT(fake_cublaslt::overruns(), IsEmpty());
  }
};

TEST_F(CudaMatmulCalls, EachOfEqualShapesAndOtherTypesHasAnAlgorithmOfItsOwn) {
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

TEST_F(CudaMatmulCalls, TypesThatItCannotMultiplyAreRefusedWithASentence) {
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

TEST_F(CudaMatmulCalls, ABiasWithoutAnAlgorithmIsAddedBehindTheProduct) {
  std::mt19937_64 engine = random_engine();
  fake_cublaslt::refuse_biases(true);
  for (const DType dtype : kFloatingTypes) {
    const Tensor a = sample({9, 8}, dtype, engine), b = sample({8, 40}, dtype, engine),
                 bias = sample({40}, DType::f32, engine);
    const Tensor expected = matmul(a.to(DType::f64), b.to(DType::f64)) + bias.to(DType::f64);
    for (int again = 0; again < 2; ++again) {  // what is kept for the shape knows it
      const Tensor out = product(a.to(kGpu), b.to(kGpu), bias.to(kGpu), dtype);
      expect_close(out, expected.to(dtype), 2 * epsilon(dtype), name_of(dtype));
    }
  }
}

/// An f32 gradient of half factors may have a bias, in f32.
TEST_F(CudaMatmulCalls, ABiasIsOfTheResultsType) {
  std::mt19937_64 engine = random_engine();
  const Tensor a = sample({3, 8}, DType::bf16, engine), b = sample({8, 4}, DType::bf16, engine),
               bias = sample({4}, DType::f32, engine) + 0x1p-12;
  const Tensor expected = matmul(a.to(DType::f32), b.to(DType::f32)) + bias;
  EXPECT_EQ(values(product(a.to(kGpu), b.to(kGpu), bias.to(kGpu), DType::f32).to(kCpu)), values(expected));
}

/// As in a training in bf16 or f16: its gradients are those of f32.
TEST_F(CudaMatmulCalls, LinearMakesItsF32GradientsOfHalfMatrices) {
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

/// The fake's engines run as the test says, by number: how often did each?
class CudaConv2dEngines : public CudaTest {
 protected:
  void TearDown() override { fake_cudnn::on_run({}); }

  /// A convolution whose shape no other test has, so that an engine is chosen for it.
  void convolve(std::int64_t size) {
    const Tensor x = ones({1, 1, size, size}, {.device = kGpu}),
                 weight = ones({1, 1, 3, 3}, {.device = kGpu});
    Tensor out = empty({1, 1, size - 2, size - 2}, {.device = kGpu});
    cuda::conv2d_forward(x, weight, Tensor(), {}, out);
  }
  std::map<int, int> runs;
};

TEST_F(CudaConv2dEngines, OneThatDoesNotRunIsLeftOut) {
  fake_cudnn::on_run([&](int engine) {
    ++runs[engine];
    return engine == 0 ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
  });
  convolve(11);
  EXPECT_EQ(runs[0], 2) << "once a round";
  EXPECT_EQ(runs[1] + runs[2], 2 * 2 * 5 + 1);
}

TEST_F(CudaConv2dEngines, OneWithoutMemoryIsLeftOut) {
  fake_cudnn::on_run([&](int engine) {
    if (engine == 0 && ++runs[engine] == 5) {  // engine 1's workspace is next; asked for twice
      emulator::fail("cudaMallocAsync", cudaErrorMemoryAllocation, 1, 2);
    }
    return CUDNN_STATUS_SUCCESS;
  });
  EXPECT_NO_THROW(convolve(12));
}

/// As from a kernel that failed: the device may be lost, and whoever runs on must hear of it.
TEST_F(CudaConv2dEngines, AnErrorOfTheDeviceIsNoLackOfMemory) {
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
TEST_F(CudaConv2dEngines, OnlyAMissingCopyEndsTheTiming) {
  convolve(14);  // weights are converted once
  emulator::fail("cudaMemsetAsync", cudaErrorIllegalAddress);
  EXPECT_THROW(convolve(15), MachineError);
  emulator::fail("", cudaSuccess);
}

}  // namespace
}  // namespace millrace::test
