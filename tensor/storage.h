#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "tensor/device.h"

namespace millrace {

/// A block of memory on a device, and the count of in-place changes made to it.
///
/// CPU blocks are 64-byte aligned and come from a per-thread cache of size classes, because activations
/// are large and the same every step; sanitizer builds bypass the cache. Pinned host memory is a storage
/// like any other (see `allocate_pinned`).
///
/// A GPU's memory comes from the stream that is current when it is allocated, and goes back to it: what that
/// stream is given next may use it again. Work on any other stream is noted by `record_stream`.
class Storage {
 public:
  /// Uninitialized. @throws MachineError when there is no memory; the message says how much was asked for.
  static std::shared_ptr<Storage> allocate(std::size_t bytes, Device device);
  /// Host memory the GPU can copy from without a detour; plain memory in a build without CUDA.
  static std::shared_ptr<Storage> allocate_pinned(std::size_t bytes);
  /// Foreign memory; `release` is called when the last tensor over it is gone.
  static std::shared_ptr<Storage> wrap(void* data, std::size_t bytes, Device device,
                                       std::function<void()> release);
  /// A part of `parent` with a version count of its own; keeps `parent` alive.
  static std::shared_ptr<Storage> part_of(std::shared_ptr<Storage> parent, std::size_t offset,
                                          std::size_t bytes);

  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  /// How often the contents were changed in place; autograd compares it with the count at saving.
  std::uint64_t version() const { return version_; }
  void bump_version() { ++version_; }
  bool is_part() const { return parent_ != nullptr; }
  /// From `allocate_pinned`, whole or a part.
  bool is_pinned() const { return is_pinned_ || (parent_ && parent_->is_pinned()); }
  /// Grows with every change of the contents that is known: its own, and those of what it is a part of.
  std::uint64_t changes() const { return version_ + (parent_ ? parent_->changes() : 0); }
  /// Says that work enqueued on `stream` uses this memory, which is then not used again before that is done.
  /// Not for several threads at once.
  void record_stream(const Stream& stream);

 private:
  Storage() = default;

  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  Device device_;
  std::uint64_t version_ = 0;
  bool is_pinned_ = false;
  std::function<void()> release_;
  std::shared_ptr<Storage> parent_;
  Stream home_;  // of a GPU's memory
  std::vector<Stream> visited_;
};

/// Bytes that CPU storages hold now, and the most they ever held, cached blocks included.
struct MemoryUse {
  std::size_t live = 0;
  std::size_t peak = 0;
};
MemoryUse cpu_memory_use();

}  // namespace millrace
