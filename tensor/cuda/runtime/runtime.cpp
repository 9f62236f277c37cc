#include "tensor/cuda/runtime/runtime.h"

#include <cstdlib>
#include <fmt/format.h>
#include <mutex>
#include <unistd.h>
#include <vector>

#include "tensor/cuda/runtime/faults.h"

namespace millrace::cuda {

namespace {

/// Whether GPUs can be used, found out once.
struct Availability {
  int count = 0;
  std::string reason;
  pid_t process = getpid();
};

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

std::string reason_for(cudaError_t error) {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) {
    return "no NVIDIA driver is loaded (libcuda.so.1 was not found, or the kernel module is missing)";
  }
  if (error == cudaErrorInsufficientDriver) {
    return fmt::format("the NVIDIA driver is for CUDA {}, this build needs CUDA {}: install a newer driver",
                       version_text(driver), version_text(runtime));
  }
  if (error == cudaErrorNoDevice || error == cudaSuccess) {
    const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
    return fmt::format("the NVIDIA driver finds no GPU{}",
                       visible == nullptr ? "" : fmt::format(" (CUDA_VISIBLE_DEVICES is '{}')", visible));
  }
  return fmt::format("CUDA does not start: {} ({})", cudaGetErrorName(error), cudaGetErrorString(error));
}

const Availability& availability() {
  static const Availability found = [] {
    Availability result;
    const cudaError_t error = cudaGetDeviceCount(&result.count);
    cudaGetLastError();
    if (error != cudaSuccess || result.count == 0) {
      result.count = 0;
      result.reason = reason_for(error);
    }
    return result;
  }();
  return found;
}

/// What an error's own text does not say.
std::string_view hint_for(cudaError_t error) {
  switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
      return "; it comes from this or from earlier work on the device: set CUDA_LAUNCH_BLOCKING=1 to see "
             "which";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
      return "; this build is for other GPUs: configure with -DCMAKE_CUDA_ARCHITECTURES for this one";
    default:
      return availability().process != getpid()
                 ? "; this process was forked from one that uses CUDA: start it by exec instead"
                 : "";
  }
}

}  // namespace

int device_count() { return availability().count; }
std::string unavailable_reason() { return availability().reason; }

std::string describe_device(int device) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "devices");
  return fmt::format("{}, {:.1f} GiB, compute capability {}.{}", properties.name,
                     static_cast<double>(properties.totalGlobalMem) / (1 << 30), properties.major,
                     properties.minor);
}

void check(cudaError_t error, std::string_view operation) {
  if (error == cudaSuccess) {
    return;
  }
  int device = 0;
  cudaGetDevice(&device);
  cudaGetLastError();  // an error that has been reported is not reported again by the next call
  throw MachineError("{}: got CUDA error {} ({}) on cuda:{}{}", operation, cudaGetErrorName(error),
                     cudaGetErrorString(error), device, hint_for(error));
}

DeviceGuard::DeviceGuard(int device) {
  check(cudaGetDevice(&before_), "device");
  if (before_ != device) {
    check(cudaSetDevice(device), "device");
  }
}

DeviceGuard::~DeviceGuard() {
  int now = before_;
  cudaGetDevice(&now);
  if (now != before_) {
    cudaSetDevice(before_);
  }
}

namespace {

/// Streams that nobody uses, by device. None is ever destroyed: memory is given back to the stream it came
/// from, however long after the thread. A stream with work left serves its next owner after that work.
class StreamPool {
 public:
  cudaStream_t take(int device) {
    const std::lock_guard lock(mutex_);
    auto& free = on(device);
    if (!free.empty()) {
      const cudaStream_t stream = free.back();
      free.pop_back();
      return stream;
    }
    const DeviceGuard guard(device);
    keep_memory(device);
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
    return stream;
  }

  void put(int device, cudaStream_t stream) {
    const std::lock_guard lock(mutex_);
    on(device).push_back(stream);
  }

 private:
  std::vector<cudaStream_t>& on(int device) {
    if (free_.size() <= static_cast<std::size_t>(device)) {
      free_.resize(static_cast<std::size_t>(device) + 1);
    }
    return free_[static_cast<std::size_t>(device)];
  }

  /// The device's pool gives nothing back to the driver, as every step needs the same memory again; and other
  /// GPUs may read and write it, which NCCL and copies do directly where they can.
  static void keep_memory(int device) {
    cudaMemPool_t pool = nullptr;
    check(cudaDeviceGetDefaultMemPool(&pool, device), "memory pool");
    std::uint64_t all = ~std::uint64_t{0};
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all), "memory pool");
    for (int other = 0; other < device_count(); ++other) {
      int can = 0;
      if (other != device) {
        check(cudaDeviceCanAccessPeer(&can, other, device), "memory pool");
      }
      if (can != 0) {
        const cudaMemAccessDesc access{{cudaMemLocationTypeDevice, other}, cudaMemAccessFlagsProtReadWrite};
        check(cudaMemPoolSetAccess(pool, &access, 1), "memory pool");
      }
    }
  }

  std::mutex mutex_;
  std::vector<std::vector<cudaStream_t>> free_;
};

StreamPool& stream_pool() {
  static auto* const pool = new StreamPool;  // threads and tensors may outlive the end of main
  return *pool;
}

/// A thread's stream on one device: its own from first use to the thread's end, and the one it works on now.
struct ThreadStream {
  std::shared_ptr<void> own;
  void* current = nullptr;
};

ThreadStream& thread_stream(int device) {
  thread_local std::vector<ThreadStream> streams;
  const auto place = static_cast<std::size_t>(device);
  if (streams.size() <= place) {
    streams.resize(place + 1);
  }
  ThreadStream& stream = streams[place];
  if (stream.current == nullptr) {
    std::tie(stream.current, stream.own) = take_stream(device);
  }
  return stream;
}

}  // namespace

std::pair<void*, std::shared_ptr<void>> take_stream(int device) {
  const cudaStream_t stream = stream_pool().take(device);
  return {stream, std::shared_ptr<void>(stream, [device](void* native) {
            stream_pool().put(device, static_cast<cudaStream_t>(native));
          })};
}

Stream current_stream(int device) { return {{Device::Kind::cuda, device}, thread_stream(device).current}; }

void* exchange_current_stream(int device, void* native) {
  return std::exchange(thread_stream(device).current, native);
}

cudaStream_t stream_of(const Tensor& out) {
  const int device = out.device().index;
  int now = -1;
  check(cudaGetDevice(&now), "device");
  if (now != device) {
    check(cudaSetDevice(device), "device");
  }
  return static_cast<cudaStream_t>(thread_stream(device).current);
}

void synchronize(const Stream& stream) {
  const DeviceGuard guard(stream.device().index);
  check(cudaStreamSynchronize(native(stream)), "synchronize");
  throw_fault(stream.device().index);
}

void record_event(void*& event, const Stream& stream) {
  const DeviceGuard guard(stream.device().index);
  if (event == nullptr) {
    cudaEvent_t made = nullptr;
    check(cudaEventCreateWithFlags(&made, cudaEventDisableTiming), "event");
    event = made;
  }
  check(cudaEventRecord(static_cast<cudaEvent_t>(event), native(stream)), "event");
}

void wait_for_event(void* event, const Stream& stream) {
  const DeviceGuard guard(stream.device().index);
  check(cudaStreamWaitEvent(native(stream), static_cast<cudaEvent_t>(event), 0), "event");
}

bool is_event_done(void* event, int device) {
  const DeviceGuard guard(device);
  const cudaError_t state = cudaEventQuery(static_cast<cudaEvent_t>(event));
  if (state == cudaErrorNotReady) {
    return false;
  }
  check(state, "event");
  return true;
}

void await_event(void* event, int device) {
  const DeviceGuard guard(device);
  check(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "synchronize");
}

void destroy_event(void* event) noexcept { cudaEventDestroy(static_cast<cudaEvent_t>(event)); }

}  // namespace millrace::cuda
