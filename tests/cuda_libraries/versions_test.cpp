// What `millrace devices` tells of CUDA: the emulator and the stand-ins have the versions of their headers.
#include <cstdlib>
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <fmt/format.h>
#include <gmock/gmock.h>

#include "base/error.h"
#include "tensor/device.h"
#include "tensor/device_memory.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::ExitedWithCode;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::ThrowsMessage;

constexpr int kMajor = CUDART_VERSION / 1000, kMinor = CUDART_VERSION % 1000 / 10;

TEST(CudaVersions, AreThoseOfTheLibraries) {
  EXPECT_EQ(cuda::describe_libraries(),
            fmt::format("CUDA {}.{}, driver for CUDA {}.{}, cuDNN {}.{}.{}, cuBLASLt {}.{}.{}", kMajor,
                        kMinor, kMajor, kMinor, CUDNN_MAJOR, CUDNN_MINOR, CUDNN_PATCHLEVEL, CUBLAS_VER_MAJOR,
                        CUBLAS_VER_MINOR, CUBLAS_VER_PATCH));
}

TEST(CudaVersions, ADeviceIsDescribedWhereItIsThere) {
  EXPECT_THAT(cuda::describe_device(0),
              AllOf(StartsWith("Emulated GPU, "), EndsWith(" GiB, compute capability 9.0")));
  EXPECT_THAT([] { cuda::describe_device(99); },
              ThrowsMessage<MachineError>(StartsWith("devices: got CUDA error cudaErrorInvalidDevice")));
}

/// In a process of its own, since GPUs are looked for once: why there are none, on its standard error.
void tell_reason(const char* variable, const char* value) {
  setenv(variable, value, 1);
  fmt::print(stderr, "{}\n", cuda_unavailable_reason());
  std::_Exit(0);
}

TEST(CudaVersionsDeathTest, AnOldDriverIsToldWithBoth) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      tell_reason("MILLRACE_EMULATED_DRIVER", "12040"), ExitedWithCode(0),
      HasSubstr(fmt::format("the NVIDIA driver is for CUDA 12.4, this build needs CUDA {}.{}: install",
                            kMajor, kMinor)));
}

TEST(CudaVersionsDeathTest, NoDriverAndNoGpuAreTold) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(tell_reason("MILLRACE_EMULATED_DRIVER", "0"), ExitedWithCode(0),
              HasSubstr("no NVIDIA driver is loaded"));
  EXPECT_EXIT(tell_reason("MILLRACE_EMULATED_GPUS", "0"), ExitedWithCode(0),
              HasSubstr("the NVIDIA driver finds no GPU"));
}

}  // namespace
}  // namespace millrace
