// How batches reach a GPU, or an emulated one.
#include <chrono>
#include <cstring>
#include <thread>

#include "pipeline/training/feeder.h"
#include "tests/pipeline/training/small_loader.h"
#include "tests/tensor/gpu/on_cuda.h"

namespace millrace {
namespace {

using test::kGpu;

using CudaFeeder = test::CudaTest;

TEST_F(CudaFeeder, BytesNormalizedOnTheDeviceAreTheLoadersNumbers) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Loader bytes = make_loader(DType::u8, 2), numbers = make_loader(dtype, 2);
    auto bytes_epoch = bytes.epoch(0), numbers_epoch = numbers.epoch(0);
    Feeder feeder(kGpu, dtype);
    Batch from, expected;
    while (bytes.next(from) && numbers.next(expected)) {
      for (int i = 0; i < 2 && from.shard(i).valid > 0; ++i) {
        const Batch brought = feeder.bring(from, i), wanted = expected.share(i);
        const Tensor got = brought.images().to(kCpu), images = wanted.images();
        ASSERT_EQ(got.strides(), images.strides());
        EXPECT_EQ(std::memcmp(got.raw(), images.raw(), got.bytes()), 0) << name_of(dtype);
        EXPECT_EQ(brought.labels().to(kCpu).at({0}), wanted.labels().at({0}));
        EXPECT_EQ(brought.ids().to(kCpu).at({0}), wanted.ids().at({0}));
        EXPECT_EQ(brought.valid(), wanted.valid());
        feeder.done();
      }
    }
  }
}

TEST_F(CudaFeeder, AGpuThatWaitsForItsBatchIsIdle) {
  Loader loader = make_loader(DType::u8, 1);
  auto epoch = loader.epoch(0);
  Batch batch;
  ASSERT_TRUE(loader.next(batch));
  Feeder feeder(kGpu, DType::f32);
  for (int step = 0; step < 2; ++step) {
    feeder.bring(batch, 0);
    feeder.done();
    feeder.end_step();
    current_stream(kGpu).synchronize();
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
  EXPECT_GE(feeder.idle_seconds(), 0.03);  // the second step's pause is not over
  EXPECT_LT(feeder.idle_seconds(), 1);
}

}  // namespace
}  // namespace millrace
