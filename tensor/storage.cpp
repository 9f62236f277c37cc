#include "tensor/storage.h"

#include <algorithm>

#include "base/error.h"
#include "tensor/config.h"
#include "tensor/device_memory.h"

namespace millrace {

std::shared_ptr<Storage> Storage::allocate(std::size_t bytes, Device device) {
  struct Made : Storage {
  };  // a local class may use the private constructor, so that one allocation serves both
  auto storage = std::make_shared<Made>();
  storage->device_ = device;
  storage->bytes_ = bytes;
  if (device.is_cpu()) {
    storage->data_ = static_cast<std::byte*>(cpu::allocate(bytes));
    return storage;
  }
  if (device.index >= cuda_device_count()) {
    throw InputError("allocate: cannot use {}: {}", device.to_string(),
                     cuda_device_count() == 0 ? cuda_unavailable_reason()
                                              : fmt::format("there are {} GPUs here", cuda_device_count()));
  }
  if constexpr (kWithCuda) {
    storage->home_ = current_stream(device);
    storage->data_ = static_cast<std::byte*>(cuda::allocate(bytes, storage->home_));
  }
  return storage;
}

std::shared_ptr<Storage> Storage::allocate_pinned(std::size_t bytes) {
  if constexpr (kWithCuda) {
    if (cuda_device_count() > 0) {
      void* data = cuda::allocate_pinned(bytes);
      auto storage = wrap(data, bytes, kCpu, [data] { cuda::release_pinned(data); });
      storage->is_pinned_ = true;
      return storage;
    }
  }
  return allocate(bytes, kCpu);
}

std::shared_ptr<Storage> Storage::wrap(void* data, std::size_t bytes, Device device,
                                       std::function<void()> release) {
  struct Made : Storage {};
  auto storage = std::make_shared<Made>();
  storage->data_ = static_cast<std::byte*>(data);
  storage->bytes_ = bytes;
  storage->device_ = device;
  storage->release_ = release ? std::move(release) : [] {};  // never ours to free
  return storage;
}

std::shared_ptr<Storage> Storage::part_of(std::shared_ptr<Storage> parent, std::size_t offset,
                                          std::size_t bytes) {
  if (offset > parent->bytes() || bytes > parent->bytes() - offset) {
    throw InputError("storage: a part of {} bytes at {} does not fit in {} bytes", bytes, offset,
                     parent->bytes());
  }
  struct Made : Storage {};
  auto storage = std::make_shared<Made>();
  storage->data_ = parent->data_ + offset;
  storage->bytes_ = bytes;
  storage->device_ = parent->device_;
  storage->parent_ = std::move(parent);
  return storage;
}

Storage::~Storage() {
  if (parent_) {
    return;
  }
  if (release_) {
    release_();
  } else if (device_.is_cpu()) {
    cpu::release(data_, bytes_);
  } else if constexpr (kWithCuda) {
    cuda::release(data_, home_, visited_);
  }
}

void Storage::record_stream(const Stream& stream) {
  if (parent_) {
    return parent_->record_stream(stream);
  }
  if (stream.device().is_cuda() && stream != home_ &&
      std::find(visited_.begin(), visited_.end(), stream) == visited_.end()) {
    visited_.push_back(stream);
  }
}

}  // namespace millrace
