#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tensor/device.h"
#include "tensor/tensor.h"

/// The seam below the kernels: what memory and streams need from a device. tensor/cpu/ and tensor/cuda/
/// define it; callers name the CUDA side inside `if constexpr (kWithCuda)` only, so a build without CUDA
/// needs no stubs.
namespace millrace {

namespace cpu {
/// 64-byte aligned, from this thread's cache where it holds a block of the size. @throws MachineError.
void* allocate(std::size_t bytes);
/// Returns a block to this thread's cache. `bytes` is what was asked for.
void release(void* data, std::size_t bytes);

/// Blocks that belong to one owner. While a thread uses them it allocates from them and gives back to them,
/// so that later nobody else is given memory that it used.
class OwnBlocks {
 public:
  /// A request that goes beyond `most_bytes` is met in the usual way, and noted.
  explicit OwnBlocks(std::size_t most_bytes) : most_bytes_(most_bytes) {}
  ~OwnBlocks();  ///< Blocks not given back yet are left to those who hold them.
  OwnBlocks(const OwnBlocks&) = delete;
  OwnBlocks& operator=(const OwnBlocks&) = delete;

  void* take(std::size_t bytes);  ///< Null beyond the limit.
  bool give_back(void* data);     ///< False when it is none of these.
  bool owns(const void* address) const;
  bool are_back() const { return in_use_ == 0; }
  bool were_enough() const { return enough_; }

 private:
  struct Block {
    std::size_t bytes;
    bool in_use;
  };
  std::size_t most_bytes_, bytes_ = 0;
  std::size_t in_use_ = 0;
  bool enough_ = true;
  std::map<std::byte*, Block> blocks_;
  std::map<std::size_t, std::vector<std::byte*>> free_;  // by size; the last one given back is taken first
};
/// From now on this thread uses these, or none. Returns those before.
OwnBlocks* exchange_own_blocks(OwnBlocks* blocks);

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
/// Forgets what kernels found wrong with the numbers they were given. @throws InputError when they did.
void throw_fault(int device);

void record_event(void*& event, const Stream& stream);
void wait_for_event(void* event, const Stream& stream);
bool is_event_done(void* event, int device);
void await_event(void* event, int device);
void destroy_event(void* event) noexcept;

/// Copies between devices: same type, same shape, both dense with the same strides, on the current stream of
/// `out`'s device, or of `source`'s where `out` is on the CPU. Pageable host memory was read, or is ready, on
/// return; pinned memory may be read or written until that stream gets there.
void copy_across(const Tensor& source, Tensor& out);
}  // namespace cuda

}  // namespace millrace
