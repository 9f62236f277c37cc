#include "tensor/gpu/idle_clock.h"

#include "tensor/cuda/runtime/runtime.h"

namespace millrace::cuda {

void* make_timed_event(int device) {
  const DeviceGuard guard(device);
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "event");
  return event;
}

double seconds_between(void* begin, void* end) {
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(begin), static_cast<cudaEvent_t>(end)),
        "event");
  return 1e-3 * milliseconds;
}

}  // namespace millrace::cuda
