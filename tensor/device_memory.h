#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "tensor/config.h"
#include "tensor/device.h"
#include "tensor/tensor.h"

/// The seam below kernels.h: what memory and streams need from a device. tensor/cpu/ and tensor/cuda/ define
/// it; callers name the CUDA side inside `if constexpr (kWithCuda)` only, so a build without CUDA needs no
/// stubs.
namespace millrace {

namespace cpu {
/// 64-byte aligned, from this thread's cache where it holds a block of the size. @throws MachineError.
void* allocate(std::size_t bytes);
/// Returns a block to this thread's cache. `bytes` is what was asked for.
void release(void* data, std::size_t bytes);
/// Whether this processor multiplies bf16 numbers itself; oneDNN has slow bf16 layers without it, or none.
bool has_bf16();
std::string onednn_version();
}  // namespace cpu

namespace cuda {
int device_count();
/// Why `device_count()` is 0: the driver or the device is missing.
std::string unavailable_reason();
/// "NVIDIA H200, 139.8 GiB, compute capability 9.0"
std::string describe_device(int device);
/// The versions of CUDA, of what the driver is for, of cuDNN and of cuBLASLt; a driver is not needed.
std::string describe_libraries();

/// Memory that work on `stream` may use from now on; null for 0 bytes. @throws MachineError.
void* allocate(std::size_t bytes, const Stream& stream);
/// Gives it back to the stream it came from, once that and `others` are done with what they hold now.
void release(void* data, const Stream& home, std::span<const Stream> others) noexcept;
void* allocate_pinned(std::size_t bytes);
void release_pinned(void* data) noexcept;

Stream current_stream(int device);
/// The stream before, for the guard that puts it back.
void* exchange_current_stream(int device, void* native);
/// A stream from a pool of them, and what returns it there.
std::pair<void*, std::shared_ptr<void>> take_stream(int device);
void synchronize(const Stream& stream);

void record_event(void*& event, const Stream& stream);
void wait_for_event(void* event, const Stream& stream);
bool is_event_done(void* event, int device);
void synchronize_event(void* event, int device);
void destroy_event(void* event) noexcept;

/// Copies between devices: same type, same shape, both dense with the same strides, on the current stream of
/// `out`'s device, or of `source`'s where `out` is on the CPU. Pageable host memory was read, or is ready, on
/// return; pinned memory may be read or written until that stream gets there.
void copy_across(const Tensor& source, Tensor& out);
}  // namespace cuda

}  // namespace millrace
