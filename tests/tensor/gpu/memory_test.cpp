#include <cstring>
#include <future>
#include <gmock/gmock.h>
#include <thread>

#include "on_cuda.h"
#include "tensor/npy.h"
#include "tensor/ops/random.h"

namespace millrace::test {
namespace {

using testing::HasSubstr;

using CudaMemory = CudaTest;

TEST_F(CudaMemory, TensorsGoThereAndBack) {
  auto engine = random_engine();
  for (DType dtype : kAllTypes) {
    for (const Shape& shape : {Shape{}, Shape{0}, Shape{5}, Shape{2, 3, 4, 5}}) {
      const Tensor x = sample(shape, dtype, engine, MemoryFormat::channels_last);
      const Tensor there = x.to(kGpu);
      EXPECT_EQ(there.device(), kGpu);
      EXPECT_EQ(there.strides(), x.strides());
      EXPECT_EQ(values(there.to(kCpu)), values(x));
      if (shape.size() == 4) {
        EXPECT_EQ(values(moved(x.select(1, 2)).to(kCpu)), values(x.select(1, 2)));
      }
    }
  }
}

TEST_F(CudaMemory, SingleElementsAndTextReadAsOnTheCpu) {
  const Tensor x = arange(0, 6).reshape({2, 3});
  Tensor there = x.to(kGpu);
  EXPECT_EQ(there.at({1, 2}), 5);
  EXPECT_EQ(there.select(0, 1).select(0, 0).item(), 3);
  there.set({0, 1}, 7);
  EXPECT_EQ(there.at({0, 1}), 7);
  there.copy_(x);  // from the CPU, in place
  there.narrow(1, 1, 2).copy_(x.narrow(1, 0, 2));
  EXPECT_EQ(values(there.to(kCpu)), (std::vector<double>{0, 0, 1, 3, 3, 4}));
  Tensor back = zeros({3, 2});
  back.t_().copy_(there);
  EXPECT_EQ(values(back), values(there.to(kCpu)));
  EXPECT_THAT(there.to_string(), HasSubstr("on cuda:0"));
  EXPECT_TRUE(all_close(there, back));
  EXPECT_EQ(values(tensor({1, 2, 3}, {.device = kGpu}).to(kCpu)), (std::vector<double>{1, 2, 3}));
}

TEST_F(CudaMemory, DevicesDoNotMix) {
  const Tensor x = ones({3});
  EXPECT_THAT(input_error([&] { x + x.to(kGpu); }), HasSubstr("cpu and cuda:0"));
}

TEST_F(CudaMemory, AGpuThatIsNotThereIsNamed) {
  EXPECT_THAT(input_error([] {
                ones({3}, {.device = {Device::Kind::cuda, 99}});
              }),
              HasSubstr("cannot use cuda:99"));
}

TEST_F(CudaMemory, TooMuchIsAnErrorThatSaysHowMuch) {
  try {
    empty({std::int64_t{1} << 50}, {.dtype = DType::u8, .device = kGpu});
    FAIL() << "a pebibyte was allocated";
  } catch (const OutOfMemory& error) {
    EXPECT_THAT(error.what(), HasSubstr("allocate: no memory for 1125899906842624 bytes"));
    EXPECT_THAT(error.what(), HasSubstr("MiB are free"));
  }
  EXPECT_EQ(ones({2}, {.device = kGpu}).to(kCpu).at({1}), 1);  // the device can still be used
}

TEST_F(CudaMemory, PinnedMemoryIsTheCpus) {
  const Tensor pinned(Storage::allocate_pinned(4000), 0, {1000}, {1}, DType::f32);
  EXPECT_TRUE(pinned.device().is_cpu());
  EXPECT_TRUE(pinned.storage()->is_pinned());
  EXPECT_TRUE(pinned.select(0, 7).with_own_version().storage()->is_pinned());
  EXPECT_FALSE(ones({3}).storage()->is_pinned());
  for (std::int64_t i = 0; i < 1000; ++i) {
    pinned.data<float>()[i] = static_cast<float>(i);
  }
  const Tensor there = pinned.to(kGpu);
  current_stream(kGpu).synchronize();
  std::memset(pinned.raw(), 0, 4000);
  EXPECT_EQ(there.to(kCpu).at({999}), 999);
}

using CudaStream = CudaTest;

TEST_F(CudaStream, EachThreadHasItsOwn) {
  const Stream here = current_stream(kGpu);
  EXPECT_EQ(here, current_stream(kGpu));
  const Stream there = std::async(std::launch::async, [] { return current_stream(kGpu); }).get();
  EXPECT_NE(here, there);
  const Stream made = Stream::make(kGpu);
  EXPECT_NE(made, here);
  {
    const StreamGuard guard(made);
    EXPECT_EQ(current_stream(kGpu), made);
    const StreamGuard inner(here);
    EXPECT_EQ(current_stream(kGpu), here);
  }
  EXPECT_EQ(current_stream(kGpu), here);
}

TEST_F(CudaStream, OneThatNobodyHasIsHandedOn) {
  const void* const first = Stream::make(kGpu).native();
  EXPECT_EQ(Stream::make(kGpu).native(), first);
}

/// Work on one stream, used by another after an event, over and over: memory that is given back must not be
/// used again too early.
TEST_F(CudaStream, EventsOrderStreamsAndMemoryWaitsForThem) {
  const Stream side = Stream::make(kGpu);
  Tensor sum = zeros({4096}, {.device = kGpu});
  for (int round = 1; round <= 50; ++round) {
    Tensor x = full({4096}, round, {.device = kGpu});
    Event made, done;
    made.record(current_stream(kGpu));
    {
      const StreamGuard guard(side);
      made.make_wait(side);
      x.storage()->record_stream(side);
      sum.add_(x);
    }
    if (round % 2 == 0) {
      x = Tensor();
    }
    full({4096}, -1000, {.device = kGpu});  // would take x's memory
    done.record(side);
    EXPECT_TRUE(round % 10 != 0 || (done.synchronize(), done.is_done()));
  }
  Event all;
  all.record(side);
  all.make_wait(current_stream(kGpu));
  sum.storage()->record_stream(side);
  EXPECT_EQ(sum.to(kCpu).at({4095}), 50 * 51 / 2);
}

TEST_F(CudaStream, MemoryOutlivesTheThreadThatTookIt) {
  Tensor x;
  std::thread([&] {
    x = full({1000}, 3, {.device = kGpu});
    current_stream(kGpu).synchronize();
  }).join();
  EXPECT_EQ(x.to(kCpu).at({999}), 3);
  x = Tensor();
  EXPECT_EQ(ones({1000}, {.device = kGpu}).to(kCpu).at({0}), 1);
}

TEST_F(CudaStream, TensorsMoveBetweenDevices) {
  if (cuda_device_count() < 2) {
    GTEST_SKIP() << "there is one GPU";
  }
  const Device other{Device::Kind::cuda, 1};
  for (int round = 0; round < 20; ++round) {
    Tensor x = full({5000}, round, {.device = kGpu});
    Tensor y = x.to(other);
    x.fill_(-1);
    EXPECT_EQ(y.add_(1).to(kGpu).to(kCpu).at({4999}), round + 1);
  }
}

/// Streams and events exist without a GPU too, where all work is done at once.
TEST(CpuStream, IsAlwaysDone) {
  const Stream stream = Stream::make(kCpu);
  const StreamGuard guard(stream);
  EXPECT_EQ(current_stream(kCpu), stream);
  Event event;
  EXPECT_TRUE(event.is_done());
  event.record(stream);
  event.make_wait(current_stream(kCpu));
  event.synchronize();
  stream.synchronize();
  EXPECT_TRUE(event.is_done());
}

}  // namespace
}  // namespace millrace::test
