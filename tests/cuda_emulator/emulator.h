#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>
#include <map>
#include <string>

/// CUDA's runtime on host threads, for tests on machines without a GPU: what of it our code uses. A stream is
/// a thread with a queue, so a missing dependency is a race; kernels run one block after the other, in a
/// random order. What is wrong with a kernel ends the process with a message: each load and store is checked.
/// MILLRACE_EMULATED_GPUS says how many devices there are (1), MILLRACE_EMULATOR_SEED how blocks are ordered
/// and streams delayed (at random; the seed is in each message, and printed at the start).
namespace millrace::emulator {

/// What is there now, and what was done since the start.
struct Counts {
  std::int64_t allocations = 0, allocated_bytes = 0;  // of device memory, as the host sees it
  std::int64_t growths = 0;  // allocations for which a pool without gaps needs more from the driver than ever
  std::int64_t pinned = 0;
  std::int64_t streams = 0;
  std::int64_t events = 0;
  std::int64_t launches = 0;
  std::int64_t loads = 0;  // of kernels: at the first launch on a device since `unload`
  std::int64_t host_to_device = 0, device_to_host = 0, device_to_device = 0;  // copies
  std::int64_t host_bytes = 0;                                                // between host and device
  std::int64_t synchronizations = 0;  // calls that wait: for a stream, a device, an event, a pageable copy
};
Counts counts();

/// How often each kernel was launched since the start: "softmax: softmax_forward", its file and name.
std::map<std::string, std::int64_t> launches();

/// The `nth` call of `call` from now on ("cudaMallocAsync"), and those after it, `times` in all, give `error`
/// and do nothing; kernels launch by "cudaLaunchKernelEx". One call at a time; an empty name takes it back.
void fail(const char* call, cudaError_t error, int nth = 1, int times = 1);

/// No kernel is loaded now.
void unload();

/// From now on a kernel that touches what it may not does not end the process: as on a GPU its device is
/// lost, where nothing runs any more and each call gives the error.
void make_faults_errors();

/// The `nth` kernel from now on touches what it may not, in the way of `error`.
void fault_kernel(cudaError_t error, int nth = 1);

/// Where device memory lies; -1 elsewhere.
int device_of(const void* pointer);

}  // namespace millrace::emulator
