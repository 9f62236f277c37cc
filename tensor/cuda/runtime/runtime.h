#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>
#include <limits>
#include <string_view>

#include "tensor/device_memory.h"
#include "tensor/tensor.h"

/// What host code in tensor/cuda/ shares. Streams and events for everybody are in tensor/device.h.
namespace millrace::cuda {

/// @throws MachineError "OPERATION: got CUDA error NAME (what it says) on cuda:N; what to do" unless it is
/// success.
void check(cudaError_t error, std::string_view operation);

/// Makes `device` the thread's current one for as long as the guard lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
};

inline cudaStream_t native(const Stream& stream) { return static_cast<cudaStream_t>(stream.native()); }

/// The most elements of one launch, which finds their places by 32-bit quotients. Tests lower it.
inline std::int64_t largest_launch = std::numeric_limits<std::int32_t>::max();

/// The calling thread's current stream on the tensor's device. That device becomes the thread's current one,
/// as launches want it.
cudaStream_t stream_of(const Tensor& out);

}  // namespace millrace::cuda
