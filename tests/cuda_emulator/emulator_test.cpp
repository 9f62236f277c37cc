// The emulator itself: what is right gives the right numbers, and planted mistakes are seen.
#include "emulator.h"

#include <atomic>
#include <cstdlib>
#include <gtest/gtest.h>
#include <numeric>
#include <vector>

#include "device.h"

namespace millrace::emulator {
namespace {

[[maybe_unused]] const int kTwoDevices = setenv("MILLRACE_EMULATED_GPUS", "2", 1);

void expect_success(cudaError_t error) { ASSERT_EQ(error, cudaSuccess) << cudaGetErrorName(error); }

class Emulator : public testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    expect_success(cudaSetDevice(0));
    expect_success(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    expect_success(cudaStreamCreateWithFlags(&other_, cudaStreamNonBlocking));
    before_ = counts();
  }
  void TearDown() override {
    EXPECT_EQ(counts().allocations, before_.allocations);
    cudaStreamDestroy(stream_);
    cudaStreamDestroy(other_);
  }

  template <typename... Parameters, typename... Arguments>
  cudaError_t launch(dim3 grid, dim3 block, void (*kernel)(Parameters...), Arguments... arguments) {
    return launch_on(stream_, grid, block, kernel, arguments...);
  }
  template <typename... Parameters, typename... Arguments>
  static cudaError_t launch_on(cudaStream_t stream, dim3 grid, dim3 block, void (*kernel)(Parameters...),
                               Arguments... arguments) {
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, arguments...);
  }
  template <typename T>
  T* allocate(std::size_t count) {
    void* data = nullptr;
    expect_success(cudaMallocAsync(&data, count * sizeof(T), stream_));
    return static_cast<T*>(data);
  }
  void free(void* data) { expect_success(cudaFreeAsync(data, stream_)); }
  template <typename T>
  std::vector<T> fetch(const T* data, std::size_t count) {
    std::vector<T> host(count);
    expect_success(cudaMemcpyAsync(host.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost, stream_));
    return host;
  }

  cudaStream_t stream_ = nullptr, other_ = nullptr;
  Counts before_;
};

__global__ void count_places(int* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] += static_cast<int>(thread + 1000 * block);
}

TEST_F(Emulator, EachThreadRunsOnce) {
  constexpr int kThreads = 4 * 3 * 2 * 8 * 2 * 2;
  int* out = allocate<int>(kThreads);
  expect_success(cudaMemsetAsync(out, 0, kThreads * sizeof(int), stream_));
  expect_success(launch({4, 3, 2}, {8, 2, 2}, count_places, out));
  const auto got = fetch(out, kThreads);
  for (int i = 0; i < kThreads; ++i) {
    EXPECT_EQ(got[static_cast<std::size_t>(i)], i % 32 + 1000 * (i / 32));
  }
  free(out);
}

__global__ void sum_blocks(const int* in, int* out) {
  __shared__ int of_warp[32];
  int value = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffff, value, distance);
  }
  if (threadIdx.x % 32 == 0) {
    of_warp[threadIdx.x / 32] = value;
  }
  __syncthreads();
  value = threadIdx.x < blockDim.x / 32 ? of_warp[threadIdx.x] : 0;
  if (threadIdx.x < 32) {
    for (unsigned distance = 16; distance > 0; distance /= 2) {
      value += __shfl_down_sync(0xffffffff, value, distance);
    }
  }
  if (threadIdx.x == 0) {
    out[blockIdx.x] = value;
  }
}

TEST_F(Emulator, BlocksSumByShufflesAndSharedMemory) {
  constexpr std::size_t kBlocks = 5, kSize = 256;
  std::vector<int> numbers(kBlocks * kSize);
  std::iota(numbers.begin(), numbers.end(), 0);
  int *in = allocate<int>(numbers.size()), *out = allocate<int>(kBlocks);
  expect_success(
      cudaMemcpyAsync(in, numbers.data(), numbers.size() * sizeof(int), cudaMemcpyHostToDevice, stream_));
  expect_success(launch(kBlocks, kSize, sum_blocks, in, out));
  const auto got = fetch(out, kBlocks);
  for (std::size_t b = 0; b < kBlocks; ++b) {
    EXPECT_EQ(got[b], std::accumulate(numbers.begin() + b * kSize, numbers.begin() + (b + 1) * kSize, 0));
  }
  free(in);
  free(out);
}

__global__ void lanes(unsigned* out) {
  const unsigned odd = __ballot_sync(0xffffffff, threadIdx.x % 2);
  const unsigned up = __shfl_up_sync(0xffffffff, threadIdx.x, 1);
  const unsigned fourth = __shfl_sync(0xffffffff, threadIdx.x, 3, 8);
  __syncwarp();
  out[threadIdx.x] = odd == 0xaaaaaaaa && up == (threadIdx.x == 0 ? 0 : threadIdx.x - 1) &&
                     fourth == threadIdx.x / 8 * 8 + 3 && __any_sync(0xffffffff, threadIdx.x == 7) &&
                     !__all_sync(0xffffffff, threadIdx.x == 7);
}

TEST_F(Emulator, WarpsVoteAndExchange) {
  auto* out = allocate<unsigned>(32);
  expect_success(launch(1, 32, lanes, out));
  EXPECT_EQ(fetch(out, 32), std::vector<unsigned>(32, 1));
  free(out);
}

__global__ void reverse(int* data, bool synced) {
  __shared__ int shared[64];
  shared[threadIdx.x] = data[threadIdx.x];
  if (synced) {
    __syncthreads();
  }
  data[threadIdx.x] = shared[63 - threadIdx.x];
}

#if !defined(__SANITIZE_THREAD__)
TEST_F(Emulator, AMissingSyncGivesWrongNumbers) {
  for (const bool synced : {true, false}) {
    std::vector<int> numbers(64);
    std::iota(numbers.begin(), numbers.end(),
              synced ? 1 : 100);  // shared memory keeps what the last block left
    int* data = allocate<int>(64);
    expect_success(cudaMemcpyAsync(data, numbers.data(), 256, cudaMemcpyHostToDevice, stream_));
    expect_success(launch(1, 64, reverse, data, synced));
    std::reverse(numbers.begin(), numbers.end());
    EXPECT_EQ(fetch(data, 64) == numbers, synced);
    free(data);
  }
}
#endif

__global__ void some_sync() {
  if (threadIdx.x < 40) {
    __syncthreads();
  }
}
__global__ void some_shuffle(int* out) {
  if (threadIdx.x < 20) {
    *out = __shfl_xor_sync(0xffffffff, 1, 1);
  }
}
__global__ void two_places(int* out) {
  if (threadIdx.x < 20) {
    __syncthreads();
  } else {
    __syncthreads();
    *out = 1;
  }
}

TEST_F(Emulator, ThreadsThatDoNotMeetAreNamed) {
  EXPECT_DEATH(
      (launch(1, 64, some_sync), cudaStreamSynchronize(stream_)),
      "no thread can go on:\n.*from thread 0 on: waits at .*emulator_test.cpp:[0-9]+, for its block\n"
      ".*from thread 40 on: has ended");
  int* out = allocate<int>(1);
  EXPECT_DEATH((launch(1, 32, some_shuffle, out), cudaStreamSynchronize(stream_)),
               "for its warp\n.*20 on: has ended");
  EXPECT_DEATH((launch(1, 32, two_places, out), cudaStreamSynchronize(stream_)), "wait at different places");
  free(out);
}

TEST_F(Emulator, IllegalLaunchesAreErrors) {
  EXPECT_EQ(launch(1, 1025, some_sync), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(0, 32, some_sync), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch({1, 65536}, 32, some_sync), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_on(nullptr, 1, 32, some_sync), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaPeekAtLastError(), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

__global__ void wait_for(const std::atomic<int>* flag) { flag->wait(0); }
__global__ void write_number(int* out, int number) { *out = number; }

TEST_F(Emulator, TheHostGoesOnAndEventsOrderStreams) {
  std::atomic<int> flag = 0;
  int* out = allocate<int>(1);
  cudaEvent_t event = nullptr;
  expect_success(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  expect_success(cudaEventQuery(event));  // never recorded
  expect_success(launch(1, 1, wait_for, &flag));
  expect_success(launch(1, 1, write_number, out, 1));
  expect_success(cudaEventRecord(event, stream_));
  EXPECT_EQ(cudaEventQuery(event), cudaErrorNotReady);
  EXPECT_EQ(cudaStreamQuery(stream_), cudaErrorNotReady);
  expect_success(cudaStreamWaitEvent(other_, event, 0));
  expect_success(launch_on(other_, 1, 1, write_number, out, 2));
  flag = 1;
  flag.notify_all();
  expect_success(cudaStreamSynchronize(other_));
  expect_success(cudaEventQuery(event));
  EXPECT_EQ(fetch(out, 1)[0], 2);
  expect_success(cudaEventDestroy(event));
  free(out);
}

TEST_F(Emulator, PinnedMemoryIsReadLateAndPageableAtOnce) {
  std::atomic<int> flag = 0;
  void* memory = nullptr;
  expect_success(cudaHostAlloc(&memory, sizeof(int), cudaHostAllocDefault));
  auto* pinned = static_cast<int*>(memory);
  int pageable = 1;
  *pinned = 1;
  int* out = allocate<int>(2);
  expect_success(launch(1, 1, wait_for, &flag));
  expect_success(cudaMemcpyAsync(out, pinned, sizeof(int), cudaMemcpyHostToDevice, stream_));
  expect_success(cudaMemcpyAsync(out + 1, &pageable, sizeof(int), cudaMemcpyHostToDevice, stream_));
  pageable = 2;
  *pinned = 2;
  flag = 1;
  flag.notify_all();
  EXPECT_EQ(fetch(out, 2), (std::vector<int>{2, 1}));
  expect_success(cudaFreeHost(memory));
  free(out);
}

__global__ void copy_number(const float* from, float* to) { *to = *from; }

TEST_F(Emulator, FreedAndFreshMemoryIsNotANumber) {
  float *out = allocate<float>(2), *stale = allocate<float>(1);
  expect_success(cudaMemsetAsync(stale, 0, sizeof(float), stream_));
  free(stale);
#if !defined(__SANITIZE_ADDRESS__)
  expect_success(launch(1, 1, copy_number, stale, out));
#endif
  float* fresh = allocate<float>(1);
  expect_success(launch(1, 1, copy_number, fresh, out + 1));
  for (const float value : fetch(out, 2)) {
    EXPECT_TRUE(std::isnan(value)) << value;
  }
  free(out);
  free(fresh);
}

TEST_F(Emulator, WritesBehindAnAllocationAreSeen) {
  int* data = allocate<int>(10);
  EXPECT_DEATH((launch(1, 1, write_number, data + 10, 7), free(data), cudaStreamSynchronize(stream_)),
               "1 bytes behind an allocation of 40|use-after-poison");
  free(data);
}

#if !defined(__SANITIZE_THREAD__)
TEST_F(Emulator, TheHostCannotTouchDeviceMemory) {
  int* data = allocate<int>(1);
  expect_success(cudaMemsetAsync(data, 0, sizeof(int), stream_));
  expect_success(cudaStreamSynchronize(stream_));
  EXPECT_DEATH(*static_cast<volatile int*>(data) = 1, "the host touched device memory");
  free(data);
}
#else
TEST_F(Emulator, TheThreadSanitizerSeesMissingOrder) {
  int* data = allocate<int>(64);
  expect_success(cudaMemsetAsync(data, 0, 256, stream_));
  expect_success(cudaDeviceSynchronize());
  EXPECT_EXIT(
      {
        launch(1, 1, write_number, data, 1);
        launch_on(other_, 1, 1, write_number, data, 2);
        cudaDeviceSynchronize();
        std::exit(0);
      },
      testing::ExitedWithCode(66), "data race");
  EXPECT_EXIT((launch(1, 64, reverse, data, false), cudaDeviceSynchronize(), std::exit(0)),
              testing::ExitedWithCode(66), "data race");
  expect_success(launch(1, 64, reverse, data, true));
  free(data);
}
#endif

TEST_F(Emulator, CopiesAreCheckedAndCounted) {
  int host = 3;
  int* data = allocate<int>(1);
  EXPECT_EQ(cudaMemcpyAsync(data, &host, 8, cudaMemcpyHostToDevice, stream_), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyAsync(data, &host, 4, cudaMemcpyDeviceToHost, stream_), cudaErrorInvalidValue);
  expect_success(cudaMemcpyAsync(data, &host, 4, cudaMemcpyHostToDevice, stream_));
  EXPECT_EQ(fetch(data, 1)[0], 3);
  EXPECT_EQ(counts().host_to_device - before_.host_to_device, 1);
  EXPECT_EQ(counts().device_to_host - before_.device_to_host, 1);
  EXPECT_EQ(counts().synchronizations - before_.synchronizations, 1);
  EXPECT_EQ(counts().allocations - before_.allocations, 1);
  free(data);
  EXPECT_EQ(cudaFreeAsync(data, stream_), cudaErrorInvalidValue);
}

TEST_F(Emulator, TwoDevicesExchangeMemory) {
  int count = 0;
  expect_success(cudaGetDeviceCount(&count));
  ASSERT_EQ(count, 2);
  int* here = allocate<int>(1);
  expect_success(launch(1, 1, write_number, here, 5));
  expect_success(cudaStreamSynchronize(stream_));
  expect_success(cudaSetDevice(1));
  EXPECT_EQ(launch(1, 1, write_number, here, 5), cudaErrorInvalidResourceHandle);
  cudaStream_t there_stream = nullptr;
  expect_success(cudaStreamCreateWithFlags(&there_stream, cudaStreamNonBlocking));
  void* there = nullptr;
  expect_success(cudaMallocAsync(&there, sizeof(int), there_stream));
  EXPECT_EQ(device_of(there), 1);
  expect_success(cudaMemcpyPeerAsync(there, 1, here, 0, sizeof(int), there_stream));
  int host = 0;
  expect_success(cudaMemcpyAsync(&host, there, sizeof(int), cudaMemcpyDefault, there_stream));
  EXPECT_EQ(host, 5);
  expect_success(cudaFreeAsync(there, there_stream));
  expect_success(cudaStreamDestroy(there_stream));
  free(here);
}

TEST_F(Emulator, FailuresCanBeInjected) {
  fail("cudaMallocAsync", cudaErrorMemoryAllocation, 2);
  int* first = allocate<int>(1);
  void* second = nullptr;
  EXPECT_EQ(cudaMallocAsync(&second, 4, stream_), cudaErrorMemoryAllocation);
  expect_success(cudaMallocAsync(&second, 4, stream_));
  fail_always(cudaErrorIllegalAddress);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorIllegalAddress);
  fail_always(cudaSuccess);
  free(first);
  free(second);
  EXPECT_EQ(cudaMallocAsync(&second, std::size_t{1} << 40, stream_), cudaErrorMemoryAllocation);
}

}  // namespace
}  // namespace millrace::emulator
