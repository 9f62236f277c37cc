#pragma once

#include <cstdlib>
#include <cstring>
#include <cuda_runtime_api.h>
#include <set>
#include <utility>

#include "internal.h"

/// What the host's side of the emulated runtime knows. Streams never lock it.
namespace millrace::emulator {

struct EmulatedDevice {
  explicit EmulatedDevice(std::size_t number) : arena(number) {}
  Arena arena;
  std::vector<CUstream_st*> streams;
  std::int64_t taken = 0, most_taken = 0;  // bytes, as the host sees it
};

struct State {
  State();
  /// What the call has to answer at once, if anything.
  cudaError_t enter(const char* call);
  /// Of the thread's current one, when a kernel there went wrong.
  cudaError_t error_of_device() const;

  std::mutex mutex;
  std::vector<std::unique_ptr<EmulatedDevice>> devices;
  int driver_version = 0;  ///< As cudaDriverGetVersion tells it.
  std::map<const std::byte*, std::size_t> pinned;
  std::map<std::pair<cudaMemPool_t, int>, cudaMemAccessFlags> access;  // of other devices to a pool
  Counts counts;
  std::set<std::pair<int, const void*>> loaded;  // kernels, by device
  std::map<const void*, std::int64_t> launched;
  std::string failing;
  cudaError_t failure = cudaSuccess;
  int calls_to_failure = 0, failures = 0;
  int kernels_to_fault = 0;
  cudaError_t fault = cudaSuccess;
};
State& state();

cudaError_t& last_error();
int& current_device();
inline bool is_device(int device) { return device >= 0 && device < static_cast<int>(state().devices.size()); }

inline void count(std::int64_t Counts::*what, std::int64_t change = 1) {
  const std::scoped_lock lock(state().mutex);
  state().counts.*what += change;
}

/// Marks are replaced by records on other threads.
inline std::shared_ptr<Mark> mark_of(cudaEvent_t event) {
  const std::scoped_lock lock(state().mutex);
  return event->mark;
}

/// One call of the API: what tests inject comes first, an error is this thread's last one.
template <typename F>
cudaError_t call(const char* name, F&& body) {
  cudaError_t error = state().enter(name);
  if (error == cudaSuccess) {
    error = body();
    if (const cudaError_t lost = state().error_of_device(); lost != cudaSuccess) {
      error = lost;
    }
  }
  if (error != cudaSuccess && error != cudaErrorNotReady) {
    last_error() = error;
  }
  return error;
}

}  // namespace millrace::emulator
