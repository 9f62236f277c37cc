// Devices, streams, events and launches of the CUDA runtime API.
#include <fmt/format.h>
#include <random>

#include "device.h"
#include "runtime_state.h"

namespace millrace::emulator {

State& state() {
  static auto* const made = new State;  // threads may outlive the end of main
  return *made;
}

State::State() {
  const char* wanted = std::getenv("MILLRACE_EMULATED_GPUS");
  const int count = wanted == nullptr ? 1 : std::atoi(wanted);
  const char* driver = std::getenv("MILLRACE_EMULATED_DRIVER");
  driver_version = driver == nullptr ? CUDART_VERSION : std::atoi(driver);
  for (int i = 0; i < count; ++i) {
    devices.push_back(std::make_unique<EmulatedDevice>(static_cast<std::size_t>(i)));
  }
}

cudaError_t State::enter(const char* call) {
  const std::scoped_lock lock(mutex);
  if (failing == call && --calls_to_failure <= 0) {
    if (--failures == 0) {
      failing.clear();
    }
    return failure;
  }
  if (driver_version < CUDART_VERSION) {
    return cudaErrorInsufficientDriver;
  }
  if (devices.empty()) {
    return cudaErrorNoDevice;
  }
  return call == std::string_view("cudaSetDevice") ? cudaSuccess : error_of_device();
}

cudaError_t State::error_of_device() const {
  return devices.empty() ? cudaSuccess
                         : devices[static_cast<std::size_t>(current_device())]->arena.error.load();
}

cudaError_t& last_error() {
  thread_local cudaError_t error = cudaSuccess;
  return error;
}

int& current_device() {
  thread_local int device = 0;
  return device;
}

Counts counts() {
  State& all = state();
  const std::scoped_lock lock(all.mutex);
  Counts result = all.counts;
  for (const auto& device : all.devices) {
    result.allocations += static_cast<std::int64_t>(device->arena.live());
    result.allocated_bytes += static_cast<std::int64_t>(Arena::kTotal - device->arena.free_bytes());
  }
  result.pinned = static_cast<std::int64_t>(all.pinned.size());
  return result;
}

std::map<std::string, std::int64_t> launches() {
  State& all = state();
  const std::scoped_lock lock(all.mutex);
  std::map<std::string, std::int64_t> result;
  for (const auto& [kernel, times] : all.launched) {
    result[name_of(kernel)] += times;
  }
  return result;
}

void fail(const char* call, cudaError_t error, int nth, int times) {
  State& all = state();
  const std::scoped_lock lock(all.mutex);
  all.failing = call;
  all.failure = error;
  all.calls_to_failure = nth;
  all.failures = times;
}

void unload() {
  State& all = state();
  const std::scoped_lock lock(all.mutex);
  all.loaded.clear();
}

int device_of(const void* pointer) {
  const auto& devices = state().devices;
  for (std::size_t i = 0; i < devices.size(); ++i) {
    if (devices[i]->arena.contains(pointer)) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

std::string describe_place(const void* data) {
  const int device = device_of(data);
  return device < 0 ? "on the host" : state().devices[static_cast<std::size_t>(device)]->arena.describe(data);
}

std::uint64_t seed() {
  static const std::uint64_t drawn = [] {
    const char* wanted = std::getenv("MILLRACE_EMULATOR_SEED");
    const std::uint64_t result =
        wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : std::random_device()();
    fmt::print(stderr, "cuda emulator: MILLRACE_EMULATOR_SEED={}\n", result);
    return result;
  }();
  return drawn;
}

namespace {
std::atomic<bool> kernels_may_fault{false};
}
bool faults_are_errors() { return kernels_may_fault.load(std::memory_order_relaxed); }
void make_faults_errors() { kernels_may_fault = true; }

void fault_kernel(cudaError_t error, int nth) {
  const std::scoped_lock lock(state().mutex);
  state().fault = error;
  state().kernels_to_fault = nth;
}

cudaError_t run_grid(const void* kernel, dim3 grid, dim3 threads,
                     const std::function<void()>& body);  // block.cpp

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> thread) {
  return call("cudaLaunchKernelEx", [&] {
    const auto [grid, block] = std::pair(config.gridDim, config.blockDim);
    const auto size = std::uint64_t{block.x} * block.y * block.z;
    const bool fits = size > 0 && size <= 1024 && block.z <= 64 && grid.x > 0 && grid.x <= 0x7fffffffu &&
                      grid.y > 0 && grid.y <= 65535 && grid.z > 0 && grid.z <= 65535;
    if (!fits || config.dynamicSmemBytes != 0 || config.stream == nullptr) {
      return cudaErrorInvalidConfiguration;  // also what the emulator does not know: dynamic memory, the
                                             // default stream
    }
    if (config.stream->device() != current_device()) {
      return cudaErrorInvalidResourceHandle;
    }
    cudaError_t planted = cudaSuccess;
    {
      const std::scoped_lock lock(state().mutex);
      ++state().counts.launches;
      ++state().launched[kernel];
      state().counts.loads += state().loaded.emplace(current_device(), kernel).second ? 1 : 0;
      if (state().kernels_to_fault > 0 && --state().kernels_to_fault == 0) {
        planted = state().fault;
      }
    }
    std::atomic<cudaError_t>& error =
        state().devices[static_cast<std::size_t>(current_device())]->arena.error;
    config.stream->push([kernel, grid, block, planted, &error, body = std::move(thread)] {
      const cudaError_t result = planted != cudaSuccess ? planted : run_grid(kernel, grid, block, body);
      if (result != cudaSuccess) {
        error.store(result);
      }
    });
    return cudaSuccess;
  });
}

}  // namespace millrace::emulator

using namespace millrace::emulator;

extern "C" {

// Errors.
cudaError_t cudaGetLastError() {
  const cudaError_t lost = state().error_of_device(), last = std::exchange(last_error(), cudaSuccess);
  return lost != cudaSuccess ? lost : last;
}
cudaError_t cudaPeekAtLastError() { return last_error(); }
const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorMisalignedAddress:
      return "cudaErrorMisalignedAddress";
    default:
      return "cudaErrorUnknown";
  }
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "an error of the emulated device";
}

// Devices.
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  return call(__func__, [&] {
    *count = static_cast<int>(state().devices.size());
    return cudaSuccess;
  });
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device();
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return call(__func__, [&] {
    if (!is_device(device)) {
      return cudaErrorInvalidDevice;
    }
    current_device() = device;
    return cudaSuccess;
  });
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return call(__func__, [&] {
    if (!is_device(device)) {
      return cudaErrorInvalidDevice;
    }
    *properties = {};
    std::strcpy(properties->name, "Emulated GPU");
    properties->major = 9;
    properties->multiProcessorCount = 132;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->totalGlobalMem = Arena::kTotal;
    properties->pciBusID = device;
    return cudaSuccess;
  });
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return call(__func__, [&] {
    switch (attribute) {
      case cudaDevAttrMultiProcessorCount:
        *value = 132;
        break;
      case cudaDevAttrComputeCapabilityMajor:
        *value = 9;
        break;
      case cudaDevAttrComputeCapabilityMinor:
        *value = 0;
        break;
      case cudaDevAttrMemoryPoolsSupported:
        *value = 1;
        break;
      default:
        return cudaErrorInvalidValue;
    }
    return is_device(device) ? cudaSuccess : cudaErrorInvalidDevice;
  });
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = state().driver_version;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  *can = device != peer ? 1 : 0;
  return is_device(device) && is_device(peer) ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) {
  return call(__func__, [] { return cudaSuccess; });
}
cudaError_t cudaDeviceSynchronize() {
  return call(__func__, [] {
    count(&Counts::synchronizations);
    std::vector<CUstream_st*> streams;
    {
      const std::scoped_lock lock(state().mutex);
      streams = state().devices[static_cast<std::size_t>(current_device())]->streams;
    }
    for (CUstream_st* stream : streams) {
      stream->synchronize();
    }
    return cudaSuccess;
  });
}

// Streams.
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  return call(__func__, [&] {
    auto& device = *state().devices[static_cast<std::size_t>(current_device())];
    *stream = new CUstream_st(current_device(), device.arena);
    const std::scoped_lock lock(state().mutex);
    device.streams.push_back(*stream);
    ++state().counts.streams;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call(__func__, [&] { return cudaStreamCreateWithPriority(stream, flags, 0); });
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call(__func__, [&] {
    {
      const std::scoped_lock lock(state().mutex);
      std::erase(state().devices[static_cast<std::size_t>(stream->device())]->streams, stream);
      --state().counts.streams;
    }
    delete stream;  // unlike CUDA's it waits for the stream's work
    return cudaSuccess;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call(__func__, [&] {
    count(&Counts::synchronizations);
    stream->synchronize();
    return cudaSuccess;
  });
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call(__func__, [&] { return stream->is_done() ? cudaSuccess : cudaErrorNotReady; });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return call(__func__, [&] {
    if (auto mark = mark_of(event)) {
      stream->push_host([mark] { mark->wait(); });
    }
    return cudaSuccess;
  });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return call(__func__, [&] {
    stream->push_host([function, data] { function(data); });
    return cudaSuccess;
  });
}

// Events.
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call(__func__, [&] {
    *event = new CUevent_st{nullptr, (flags & cudaEventDisableTiming) == 0};
    count(&Counts::events);
    return cudaSuccess;
  });
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return call(__func__, [&] { return cudaEventCreateWithFlags(event, cudaEventDefault); });
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call(__func__, [&] {
    delete event;
    count(&Counts::events, -1);
    return cudaSuccess;
  });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call(__func__, [&] {
    auto mark = stream->record();
    const std::scoped_lock lock(state().mutex);
    event->mark.swap(mark);
    return cudaSuccess;
  });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call(__func__, [&] {
    const auto mark = mark_of(event);
    return !mark || mark->done.load(std::memory_order_acquire) ? cudaSuccess : cudaErrorNotReady;
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call(__func__, [&] {
    count(&Counts::synchronizations);
    if (const auto mark = mark_of(event)) {
      mark->wait();
    }
    return cudaSuccess;
  });
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return call(__func__, [&] {
    const auto from = mark_of(start), to = mark_of(end);
    if (!from || !to || !start->timed || !end->timed) {
      return cudaErrorInvalidResourceHandle;
    }
    if (!from->done.load(std::memory_order_acquire) || !to->done.load(std::memory_order_acquire)) {
      return cudaErrorNotReady;
    }
    *milliseconds = std::chrono::duration<float, std::milli>(to->time - from->time).count();
    return cudaSuccess;
  });
}

}  // extern "C"
