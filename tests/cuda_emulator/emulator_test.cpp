// The emulator itself: what is right gives the right numbers, and planted mistakes are seen.
#include "emulator.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <gtest/gtest.h>
#include <numeric>
#include <thread>
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
    std::iota(numbers.begin(), numbers.end(), 1);
    int* data = allocate<int>(64);
    expect_success(cudaMemcpyAsync(data, numbers.data(), 256, cudaMemcpyHostToDevice, stream_));
    expect_success(launch(1, 64, reverse, data, synced));
    std::reverse(numbers.begin(), numbers.end());
    EXPECT_EQ(fetch(data, 64) == numbers, synced);
    free(data);
  }
}
#endif

template <typename T>
__global__ void read_shared(T* out, bool writes) {
  __shared__ T kept[4];
  if (writes) {
    kept[threadIdx.x] = 1;
  }
  out[blockIdx.x * 4 + threadIdx.x] = kept[threadIdx.x];
}

TEST_F(Emulator, EachBlockFindsSharedMemoryPoisoned) {
  float* out = allocate<float>(12);
  for (const bool writes : {true, false}) {
    expect_success(launch(3, 4, read_shared<float>, out, writes));
    for (const float value : fetch(out, 12)) {
      EXPECT_EQ(std::isnan(value), !writes) << value;
    }
  }
  free(out);
}

__global__ void note_order(int* next, int* order) { order[blockIdx.x] = atomicAdd(next, 1); }

TEST_F(Emulator, BlocksRunInARandomOrder) {
  constexpr int kBlocks = 1000;
  int *next = allocate<int>(1), *order = allocate<int>(kBlocks);
  std::vector<std::vector<int>> orders;
  for (int launches = 0; launches < 2; ++launches) {
    expect_success(cudaMemsetAsync(next, 0, sizeof(int), stream_));
    expect_success(launch(kBlocks, 1, note_order, next, order));
    orders.push_back(fetch(order, kBlocks));
  }
  EXPECT_NE(orders[0], orders[1]);
  std::vector<int> all(kBlocks);
  std::iota(all.begin(), all.end(), 0);
  for (std::vector<int>& got : orders) {
    EXPECT_NE(got, all);
    std::sort(got.begin(), got.end());
    EXPECT_EQ(got, all) << "each block once";
  }
  free(next);
  free(order);
}

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
__global__ void shuffle_all(int* out) { *out = __shfl_xor_sync(0xffffffff, 1, 1); }
__global__ void ballot_of_some(unsigned* out) {
  if (threadIdx.x % 2 == 0) {
    *out = __ballot_sync(0x55555555, 1);
  } else if (threadIdx.x < 20) {
    __syncwarp(0xffffffff);
  }
}
__global__ void sync_in_a_loop() {
  for (unsigned i = 0; i <= threadIdx.x; ++i) {
    __syncthreads();
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
               "kernel emulator_test: some_shuffle, block .*(for its warp\n.*20 on: has ended|0xffffffff "
               "names lane 20 of the warp, "
               "which has ended)");
  EXPECT_DEATH((launch(1, 20, shuffle_all, out), cudaStreamSynchronize(stream_)),
               "0xffffffff names lane 20 of the warp, which is not there");
  EXPECT_DEATH(
      (launch(1, 32, ballot_of_some, reinterpret_cast<unsigned*>(out)), cudaStreamSynchronize(stream_)),
      "has ended");
  EXPECT_DEATH((launch(1, 32, sync_in_a_loop), cudaStreamSynchronize(stream_)),
               "0 on: has ended\n.*1 on: waits at .*, for its block");
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

TEST_F(Emulator, DelaysShowAMissingEvent) {
  int *from = allocate<int>(1), *to = allocate<int>(1);
  cudaEvent_t event = nullptr;
  expect_success(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  expect_success(cudaStreamSynchronize(stream_));
  for (const bool waits : {true, false}) {
    int late = 0;
    for (int i = 1; i <= 1000; ++i) {
      expect_success(launch(1, 1, write_number, from, i));
      expect_success(cudaEventRecord(event, stream_));
      std::this_thread::sleep_for(std::chrono::microseconds(100));  // the number would nearly always be there
      if (waits) {
        expect_success(cudaStreamWaitEvent(other_, event, 0));
      }
      expect_success(cudaMemcpyAsync(to, from, sizeof(int), cudaMemcpyDeviceToDevice, other_));
      int got = 0;
      expect_success(cudaMemcpyAsync(&got, to, sizeof(int), cudaMemcpyDeviceToHost, other_));
      late += got != i ? 1 : 0;
      expect_success(cudaStreamSynchronize(stream_));
    }
    EXPECT_EQ(late > 0, !waits) << late;
  }
  expect_success(cudaEventDestroy(event));
  free(from);
  free(to);
}

TEST_F(Emulator, MoreMemoryThanEverIsAGrowth) {
  const auto growths = [&] { return counts().growths; };
  int* first = allocate<int>(1 << 20);
  const std::int64_t before = growths();
  free(first);
  first = allocate<int>(1 << 20);
  EXPECT_EQ(growths(), before);
  int* second = allocate<int>(1);
  EXPECT_EQ(growths(), before + 1);
  free(first);
  free(second);
}

__global__ void copy_number(const float* from, float* to) { *to = *from; }

TEST_F(Emulator, FreshMemoryIsNotANumber) {
  float *out = allocate<float>(1), *fresh = allocate<float>(1);
  expect_success(launch(1, 1, copy_number, fresh, out));
  EXPECT_TRUE(std::isnan(fetch(out, 1)[0]));
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
TEST_F(Emulator, ReadsAndWritesBeyondAnAllocationAreSeen) {
  auto* data = allocate<float>(10);
  float *out = allocate<float>(1), *freed = allocate<float>(3);
  free(freed);
  const auto expect_death = [&](const float* from, float* to, const std::string& message) {
    EXPECT_DEATH((launch(1, 1, copy_number, from, to), cudaStreamSynchronize(stream_)),
                 message + "|use-after-poison");
  };
  const std::string place = R"(kernel emulator_test: copy_number, block \(0, 0, 0\), thread \(0, 0, 0\): )";
  expect_death(data + 10, out,
               place + "reads 4 bytes 1 bytes behind an allocation of 40 .MILLRACE_EMULATOR_SEED=");
  expect_death(data + 12, out, "reads 4 bytes 9 bytes behind an allocation of 40");
  expect_death(data - 1, out, "reads 4 bytes 4 bytes before an allocation of 40");
  expect_death(freed, out, "reads 4 bytes in memory that was freed");
  expect_death(out, data + 10, place + "writes 4 bytes 1 bytes behind an allocation of 40");
  free(data);
  free(out);
}

struct Wide {
  alignas(16) float at[4];
};
__global__ void copy_wide(const Wide* from, Wide* to) { *to = *from; }

TEST_F(Emulator, WideReadsAndWritesAreAlignedAndInside) {
  auto* data = allocate<float>(18);
  const auto copy = [&](int from, int to) {
    return launch(1, 1, copy_wide, reinterpret_cast<const Wide*>(data + from),
                  reinterpret_cast<Wide*>(data + to));
  };
  expect_success(copy(0, 12));
  const std::string misaligned =
      "emulator_test.cpp:[0-9]+: uses 0x[0-9a-f]+, which is no multiple of 16|misaligned";
  EXPECT_DEATH((copy(2, 0), cudaStreamSynchronize(stream_)), misaligned);
  EXPECT_DEATH((copy(0, 2), cudaStreamSynchronize(stream_)), misaligned);
  EXPECT_DEATH((copy(0, 16), cudaStreamSynchronize(stream_)), "behind an allocation of 72|use-after-poison");
  free(data);
}

#if !defined(__SANITIZE_ADDRESS__)
TEST_F(Emulator, AfterAFaultEachCallOnTheDeviceFails) {
  const auto lose_device = [&] {
    make_faults_errors();
    float *data = allocate<float>(10), *out = allocate<float>(1);
    cudaEvent_t event = nullptr;
    expect_success(cudaEventCreate(&event));
    expect_success(
        launch(4, 64, sum_blocks, reinterpret_cast<const int*>(data), reinterpret_cast<int*>(out)));
    cudaEventRecord(event, stream_);
    const std::vector<cudaError_t> errors = {cudaEventSynchronize(event),
                                             cudaStreamSynchronize(stream_),
                                             cudaStreamSynchronize(other_),
                                             cudaDeviceSynchronize(),
                                             cudaEventQuery(event),
                                             cudaStreamQuery(other_),
                                             launch(1, 1, write_number, reinterpret_cast<int*>(out), 1),
                                             cudaMemsetAsync(out, 0, 4, other_),
                                             cudaFreeAsync(out, stream_),
                                             cudaGetLastError(),
                                             cudaGetLastError()};
    for (const cudaError_t error : errors) {
      EXPECT_EQ(error, cudaErrorIllegalAddress) << cudaGetErrorName(error);
    }
    expect_success(cudaSetDevice(1));
    cudaStream_t there = nullptr;
    expect_success(cudaStreamCreateWithFlags(&there, cudaStreamNonBlocking));
    expect_success(cudaStreamSynchronize(there));
    std::exit(testing::Test::HasFailure() ? 1 : 0);
  };
  EXPECT_EXIT(lose_device(), testing::ExitedWithCode(0), "");
}
#endif
#endif

TEST_F(Emulator, FaultsCanBePlanted) {
  EXPECT_EXIT(
      {
        int* out = allocate<int>(1);
        fault_kernel(cudaErrorMisalignedAddress, 2);
        expect_success(launch(1, 1, write_number, out, 1));
        expect_success(cudaStreamSynchronize(stream_));
        launch(1, 1, write_number, out, 2);
        std::exit(cudaStreamSynchronize(stream_) == cudaErrorMisalignedAddress ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
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
  EXPECT_EQ(counts().host_bytes - before_.host_bytes, 8);
  EXPECT_EQ(counts().synchronizations - before_.synchronizations, 1);
  EXPECT_EQ(counts().allocations - before_.allocations, 1);
  const std::int64_t launched = launches()["emulator_test: write_number"];
  expect_success(launch(1, 1, write_number, data, 1));
  EXPECT_EQ(launches()["emulator_test: write_number"], launched + 1);
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
  free(first);
  free(second);
  EXPECT_EQ(cudaMallocAsync(&second, std::size_t{1} << 40, stream_), cudaErrorMemoryAllocation);
}

}  // namespace
}  // namespace millrace::emulator
