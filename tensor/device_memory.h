#pragma once

#include <cstddef>
#include <string>

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
void* allocate(std::size_t bytes, int device);
void release(void* data, std::size_t bytes, int device);
void* allocate_pinned(std::size_t bytes);
void release_pinned(void* data, std::size_t bytes);
Stream current_stream(int device);
void synchronize(const Stream& stream);
/// Copies between devices: same type, same shape, both dense with the same strides. Host memory may be read
/// or written until the current stream of the CUDA side gets here, and is ready on return when it is
/// pageable.
void copy_across(const Tensor& source, Tensor& out);
}  // namespace cuda

}  // namespace millrace
