// What our kernels are launched for, and in how many parts.
#include <chrono>
#include <functional>
#include <thread>

#include "emulator.h"
#include "tensor/cuda/runtime/runtime.h"
#include "tensor/gpu/idle_clock.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/matmul.h"
#include "tensor/kernels/random.h"
#include "tensor/ops.h"
#include "tests/tensor/gpu/on_cuda.h"

namespace millrace::test {
namespace {

using CudaLaunches = CudaTest;

std::int64_t launches_of(const std::function<void()>& work) {
  const emulator::Counts before = emulator::counts();
  work();
  const emulator::Counts after = emulator::counts();
  return after.launches - before.launches + after.device_to_device - before.device_to_device;
}

TEST_F(CudaLaunches, LargeSumsAreSplit) {
  const TensorOptions options{.device = kGpu};
  const Tensor few = ones({4, 100}, options), many = ones({4, 100000}, options),
               tall = ones({100000, 4}, options);
  EXPECT_EQ(launches_of([&] { sum(few, {.dims = {1}}); }), 1);
  EXPECT_EQ(launches_of([&] { sum(many, {.dims = {1}}); }), 2);
  EXPECT_EQ(launches_of([&] { sum(tall, {.dims = {0}}); }), 2);
  EXPECT_EQ(launches_of([&] { sum(many); }), 2);
}

TEST_F(CudaLaunches, AnAlignedBiasIsReadWhereItLies) {
  const TensorOptions options{.device = kGpu};
  const Tensor a = ones({8, 16}, options), b = ones({16, 8}, options), biases = ones({32}, options);
  Tensor out = empty({8, 8}, options);
  EXPECT_EQ(launches_of([&] { cuda::matmul(a, b, biases.narrow(0, 8, 8), out); }), 0);
  EXPECT_EQ(launches_of([&] { cuda::matmul(a, b, biases.narrow(0, 1, 8), out); }), 1);
}

/// With the largest launch lowered, since one of 2^31 elements takes long to emulate.
class CudaParts : public CudaTest {
 protected:
  void TearDown() override { cuda::largest_launch = before_; }
  /// Each a view: dense, every second element, transposed.
  std::vector<Tensor> views() {
    std::vector<Tensor> made;
    for (const Shape& shape : {Shape{7, 5, 11}, Shape{2, 3, 8, 9}, Shape{150, 3}}) {
      const Tensor x = sample(shape, DType::f32, engine_);
      made.insert(made.end(), {x, x.slice(0, 1, shape[0], 2), x.transpose(0, -1)});
    }
    return made;
  }
  std::mt19937_64 engine_ = random_engine();
  std::int64_t before_ = cuda::largest_launch;
};

TEST_F(CudaParts, GiveTheNumbersOfOneLaunch) {
  for (const std::int64_t most : {1, 10, 40}) {
    for (const Tensor& x : views()) {
      const Tensor there = moved(x);
      cuda::largest_launch = most;
      expect_close(there + there.select(0, 0), x + x.select(0, 0), 0, "sum of two");
      expect_close(there.contiguous(), x, 0, "copy");
      for (int dim = 0; dim < x.dim(); ++dim) {
        expect_close(sum(there, {.dims = {dim}}), sum(x, {.dims = {dim}}), 0, "sum along one dimension");
        expect_close(argmax(there, dim), argmax(x, dim), 0, "place of the largest");
      }
      expect_close(sum(there), sum(x), 0, "sum");
      expect_close(argmax(there), argmax(x), 0, "place of the largest of all");
      cuda::largest_launch = before_;
    }
  }
}

TEST_F(CudaParts, TakeAndAddAlongIndexesAsOneLaunch) {
  for (const Tensor& x : views()) {
    const Tensor there = moved(x);
    for (int dim = 0; dim < x.dim(); ++dim) {
      Tensor index = empty(x.shape(), {.dtype = DType::i64});
      for (std::int64_t i = 0; i < index.numel(); ++i) {
        index.data<std::int64_t>()[i] =
            static_cast<std::int64_t>(engine_() % static_cast<std::uint64_t>(x.size(dim)));
      }
      const Tensor line = index.view({index.numel()}).narrow(0, 0, x.size(dim));
      Tensor sums = x.clone(), sums_there = there.clone();
      scatter_add_(sums, dim, index, x);
      cuda::largest_launch = 25;
      expect_close(index_select(there, dim, line.to(kGpu)), index_select(x, dim, line), 0, "index_select");
      expect_close(gather(there, dim, index.to(kGpu)), gather(x, dim, index), 0, "gather");
      scatter_add_(sums_there, dim, index.to(kGpu), there);
      expect_close(sums_there, sums, 0, "scatter_add_");
      cuda::largest_launch = before_;
    }
  }
}

TEST_F(CudaParts, DrawTheMaskOfOneLaunch) {
  const Tensor x = sample({2, 3, 8, 9}, DType::f32, engine_, MemoryFormat::channels_last);
  const auto dropped = [&](const Tensor& from) {
    Tensor out = empty(x.shape(), {.device = from.device(), .format = MemoryFormat::channels_last});
    MILLRACE_LAUNCH(from.device(), dropout, from, 0.4, 7, 3, out);
    return out;
  };
  const Tensor there = x.to(kGpu);
  for (const std::int64_t most : {1, 10, 40}) {
    cuda::largest_launch = most;
    expect_close(dropped(there), dropped(x), 0, "dropout");
  }
}

TEST_F(CudaLaunches, AnIdleClockCountsPauses) {
  const Stream stream = current_stream(kGpu);
  IdleClock clock;
  for (int i = 0; i < 3; ++i) {
    clock.pause(stream);
    stream.synchronize();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    clock.resume(stream);
    stream.synchronize();
    std::this_thread::sleep_for(std::chrono::milliseconds(i == 0 ? 500 : 0));  // work, not a pause
  }
  EXPECT_GE(clock.seconds(), 0.06);
  EXPECT_LT(clock.seconds(), 0.4);
}

}  // namespace
}  // namespace millrace::test
