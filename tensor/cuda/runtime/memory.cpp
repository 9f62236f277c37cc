#include <algorithm>

#include "tensor/cuda/runtime/faults.h"
#include "tensor/cuda/runtime/runtime.h"

namespace millrace::cuda {

namespace {

double mebibytes(std::size_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

[[noreturn]] void throw_no_memory(std::size_t bytes, int device) {
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  throw OutOfMemory("allocate: no memory for {} bytes ({:.1f} MiB) on cuda:{}; {:.1f} of {:.1f} MiB are free",
                    bytes, mebibytes(bytes), device, mebibytes(free), mebibytes(total));
}

}  // namespace

void* allocate(std::size_t bytes, const Stream& stream) {
  if (bytes == 0) {
    return nullptr;
  }
  const DeviceGuard guard(stream.device().index);
  void* data = nullptr;
  cudaError_t error = cudaMallocAsync(&data, bytes, native(stream));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    check(cudaDeviceSynchronize(), "allocate");  // what other streams have freed is free once they are done
    error = cudaMallocAsync(&data, bytes, native(stream));
  }
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw_no_memory(bytes, stream.device().index);
  }
  check(error, "allocate");
  return data;
}

// Errors are left to the next checked call: this runs in destructors, also after CUDA has gone at exit.
void release(void* data, const Stream& home, std::span<const Stream> others) noexcept {
  if (data == nullptr) {
    return;
  }
  try {
    const DeviceGuard guard(home.device().index);
    for (const Stream& other : others) {
      Event event;
      event.record(other);
      event.make_wait(home);
    }
    cudaFreeAsync(data, native(home));
  } catch (const MachineError&) {
  }
}

void* allocate_pinned(std::size_t bytes) {
  void* data = nullptr;
  check(cudaHostAlloc(&data, std::max<std::size_t>(bytes, 1), cudaHostAllocPortable), "allocate_pinned");
  return data;
}

void release_pinned(void* data) noexcept { cudaFreeHost(data); }

namespace {

void copy_between_devices(const Tensor& source, Tensor& out, std::size_t bytes) {
  const Stream from = current_stream(source.device()), to = current_stream(out.device());
  Event written, read;
  written.record(from);
  written.make_wait(to);
  const DeviceGuard guard(out.device().index);
  check(cudaMemcpyPeerAsync(out.raw(), out.device().index, source.raw(), source.device().index, bytes,
                            native(to)),
        "copy");
  read.record(to);
  read.make_wait(from);  // before the source is changed or given back
}

}  // namespace

void copy_across(const Tensor& source, Tensor& out) {
  const std::size_t bytes = out.bytes();
  if (bytes == 0) {
    return;
  }
  if (source.device().is_cuda() && out.device().is_cuda()) {
    return copy_between_devices(source, out, bytes);
  }
  const Stream stream = current_stream(source.device().is_cuda() ? source.device() : out.device());
  const DeviceGuard guard(stream.device().index);
  check(cudaMemcpyAsync(out.raw(), source.raw(), bytes, cudaMemcpyDefault, native(stream)), "copy");
  const bool to_host = out.device().is_cpu();
  if ((to_host ? out : source).storage()->is_pinned()) {
    return;  // whoever waits for it is told of faults
  }
  check(cudaStreamSynchronize(native(stream)), "copy");  // CUDA says only that it might have waited
  if (to_host) {
    throw_fault(stream.device().index);
  }
}

}  // namespace millrace::cuda
