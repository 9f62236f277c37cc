// What matmul.cpp and conv2d.cpp do with what cuBLASLt and cuDNN answer.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <gmock/gmock.h>
#include <map>
#include <numeric>
#include <regex>
#include <thread>

#include "autograd/ops.h"
#include "emulator.h"
#include "library_fixtures.h"
#include "tensor/gpu/engine_choices.h"
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

/// A number that TF32 rounds to 1.
constexpr double kFine = 1 + 0x1p-12;

/// The other types know no choice, and ask for nothing anew.
TEST_F(CublasLt, Tf32IsForF32WhereItIsAskedFor) {
  for (const DType dtype : kFloatingTypes) {
    const Tensor a = full({3, 8}, kFine, {.dtype = dtype, .device = kGpu}),
                 b = ones({8, 3}, {.dtype = dtype, .device = kGpu});
    const auto asked = [&](bool tf32) {
      set_gpu_arithmetic({.tf32 = tf32});
      const int before = fake_cublaslt::counts().heuristics;
      const double kept = dtype == DType::f64 || (dtype == DType::f32 && !tf32) ? kFine : 1;
      EXPECT_EQ(values(product(a, b, Tensor(), dtype).to(kCpu)), std::vector<double>(9, 8 * kept))
          << name_of(dtype) << ", tf32 " << tf32;
      return fake_cublaslt::counts().heuristics - before;
    };
    asked(false);
    EXPECT_EQ(asked(true), dtype == DType::f32 ? 1 : 0) << name_of(dtype);
    EXPECT_EQ(asked(false), 0) << name_of(dtype);
  }
}

/// A convolution whose shape no other test has, so that an engine is chosen for it.
Tensor convolve(std::int64_t size, double number = 1, DType dtype = DType::f32) {
  const TensorOptions options{.dtype = dtype, .device = kGpu};
  const Tensor x = full({1, 1, size, size}, number, options), weight = ones({1, 1, 3, 3}, {.device = kGpu});
  Tensor out = empty({1, 1, size - 2, size - 2}, options);
  cuda::conv2d_forward(x, weight, Tensor(), {}, out);
  return out;
}

/// The other types know no choice, and their engines are chosen once.
TEST_F(CudnnExecution, Tf32IsForF32WhereItIsAskedFor) {
  for (const bool tf32 : {false, true, false}) {
    set_gpu_arithmetic({.tf32 = tf32});
    if (tf32) {  // of all that are allowed then, those that round
      fake_cudnn::on_run(
          [](int engine) { return engine == 1 ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED; });
    }
    EXPECT_EQ(values(convolve(16, kFine).to(kCpu)), std::vector<double>(14 * 14, 9 * (tf32 ? 1 : kFine)));
    fake_cudnn::on_run({});
  }
  for (const DType dtype : {DType::bf16, DType::f16}) {
    convolve(17, 1, dtype);
    const std::size_t chosen = engine_choices().size();
    set_gpu_arithmetic({.tf32 = true});
    convolve(17, 1, dtype);
    EXPECT_EQ(engine_choices().size(), chosen) << name_of(dtype);
    set_gpu_arithmetic({});
  }
}

/// The mean of four runs, measured twice; -1 for an engine that fails.
TEST_F(CudnnExecution, EngineTimesAreTheMicrosecondsOfARun) {
  using Clock = std::chrono::steady_clock;
  fake_cudnn::name_all_engines(true);
  fake_cudnn::on_run([](int engine) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return engine == 0 ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
  });
  setenv("MILLRACE_ENGINE_TIMES", "1", 1);
  testing::internal::CaptureStderr();
  const Clock::time_point start = Clock::now();
  convolve(18);
  const double passed = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
  const std::string lines = testing::internal::GetCapturedStderr();
  unsetenv("MILLRACE_ENGINE_TIMES");
  const std::regex line("engine time: .* bytes; (-?[0-9.]+) us(; kept)?\n");
  std::vector<double> times, kept;
  int failed = 0;
  for (std::sregex_iterator found(lines.begin(), lines.end(), line), end; found != end; ++found) {
    const double time = std::stod((*found)[1]);
    if (time == -1) {
      ++failed;
      continue;
    }
    EXPECT_GT(time, 2500) << "of 5000, since the first run may be done before the clock is started";
    times.push_back(time);
    if ((*found)[2].matched) {
      kept.push_back(time);
    }
  }
  EXPECT_LT(std::accumulate(times.begin(), times.end(), 0.0) * 4 * 2, passed) << lines;
  EXPECT_EQ(failed, 1) << lines;
  ASSERT_GT(times.size(), 1u) << lines;
  EXPECT_EQ(kept, std::vector{*std::ranges::min_element(times)}) << lines;
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
  EXPECT_GT(fake_cudnn::refusals(), before) << "none was refused, seed " << seed();
}

}  // namespace
}  // namespace millrace::test
