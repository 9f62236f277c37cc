// Memory of the CUDA runtime API: allocation in stream order, pinned memory, copies.
#include <span>

#include "runtime_state.h"

using namespace millrace::emulator;

namespace {

bool is_pinned(const void* data, std::size_t bytes) {
  const std::scoped_lock lock(state().mutex);
  const auto* place = static_cast<const std::byte*>(data);
  auto found = state().pinned.upper_bound(place);
  return found != state().pinned.begin() && place + bytes <= (--found)->first + found->second;
}

Arena& arena(int device) { return state().devices[static_cast<std::size_t>(device)]->arena; }

/// A side of a copy: a device's number, or -1 for the host. False when the range is in no live allocation.
bool is_valid_side(const void* data, std::size_t bytes, int device) {
  return device < 0 || arena(device).holds(data, bytes);
}

/// Pinned memory belongs to the copy until the stream gets there. Pageable memory is read at once, and is
/// written when the call returns.
cudaError_t copy(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
  const int target = device_of(to), source = device_of(from);
  if (stream == nullptr || !is_valid_side(to, bytes, target) || !is_valid_side(from, bytes, source)) {
    return cudaErrorInvalidValue;
  }
  count(target < 0   ? &Counts::device_to_host
        : source < 0 ? &Counts::host_to_device
                     : &Counts::device_to_device);
  count(&Counts::host_bytes, target < 0 || source < 0 ? static_cast<std::int64_t>(bytes) : 0);
  if (source < 0 && !is_pinned(from, bytes)) {
    const auto* begin = static_cast<const std::byte*>(from);
    stream->push([to, staged = std::vector<std::byte>(begin, begin + bytes)] {
      std::memcpy(to, staged.data(), staged.size());
    });
    return cudaSuccess;
  }
  const int device = stream->device();
  stream->push([=] {
    for (const int side : {target, source}) {
      if (side >= 0 && side != device) {
        arena(side).open();
      }
    }
    std::memcpy(to, from, bytes);
    for (const int side : {target, source}) {
      if (side >= 0 && side != device) {
        arena(side).close();
      }
    }
  });
  if (target < 0 && !is_pinned(to, bytes)) {
    count(&Counts::synchronizations);
    stream->synchronize();
  }
  return cudaSuccess;
}

/// What is given back in a stream's order can be taken again at once, so the host's order counts.
void note_taken(int device, std::int64_t bytes) {
  const std::scoped_lock lock(state().mutex);
  EmulatedDevice& owner = *state().devices[static_cast<std::size_t>(device)];
  owner.taken += bytes;
  if (owner.taken > owner.most_taken) {
    owner.most_taken = owner.taken;
    ++state().counts.growths;
  }
}

bool fits_kind(const void* to, const void* from, cudaMemcpyKind kind) {
  const bool to_device = device_of(to) >= 0, from_device = device_of(from) >= 0;
  return kind == cudaMemcpyDefault || (kind == cudaMemcpyHostToDevice && to_device && !from_device) ||
         (kind == cudaMemcpyDeviceToHost && !to_device && from_device) ||
         (kind == cudaMemcpyDeviceToDevice && to_device && from_device) ||
         (kind == cudaMemcpyHostToHost && !to_device && !from_device);
}

}  // namespace

extern "C" {

cudaError_t cudaMallocAsync(void** data, std::size_t bytes, cudaStream_t stream) {
  return call(__func__, [&] {
    if (stream == nullptr) {
      return cudaErrorInvalidValue;
    }
    *data = nullptr;
    void* taken = bytes == 0 ? nullptr : arena(stream->device()).take(bytes);
    if (taken == nullptr) {
      return bytes == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
    }
    note_taken(stream->device(), static_cast<std::int64_t>(bytes));
    stream->push([taken, bytes, device = stream->device()] { arena(device).prepare(taken, bytes); });
    *data = taken;
    return cudaSuccess;
  });
}

cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  return call(__func__, [&] {
    const int device = device_of(data);
    if (data == nullptr) {
      return cudaSuccess;
    }
    const std::size_t bytes = device < 0 || stream == nullptr ? 0 : arena(device).forget(data);
    if (bytes == 0) {
      return cudaErrorInvalidValue;
    }
    note_taken(device, -static_cast<std::int64_t>(bytes));
    stream->push([data, bytes, device] { arena(device).clear(data, bytes); });
    return cudaSuccess;
  });
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return call(__func__, [&] {
    *free = arena(current_device()).free_bytes();
    *total = Arena::kTotal;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  return call(__func__, [&] {
    *pool = reinterpret_cast<cudaMemPool_t>(&arena(device));
    return cudaSuccess;
  });
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return call(__func__, [] { return cudaSuccess; });
}
cudaError_t cudaMemPoolSetAccess(cudaMemPool_t pool, const cudaMemAccessDesc* accesses, std::size_t count) {
  return call(__func__, [&] {
    const std::scoped_lock lock(state().mutex);
    for (const cudaMemAccessDesc& access : std::span(accesses, count)) {
      if (access.location.type != cudaMemLocationTypeDevice || !is_device(access.location.id)) {
        return cudaErrorInvalidValue;
      }
      state().access[{pool, access.location.id}] = access.flags;
    }
    return cudaSuccess;
  });
}
cudaError_t cudaMemPoolGetAccess(cudaMemAccessFlags* flags, cudaMemPool_t pool, cudaMemLocation* location) {
  return call(__func__, [&] {
    const std::scoped_lock lock(state().mutex);
    *flags = pool == reinterpret_cast<cudaMemPool_t>(&arena(location->id))
                 ? cudaMemAccessFlagsProtReadWrite
                 : state().access[{pool, location->id}];
    return cudaSuccess;
  });
}

cudaError_t cudaHostAlloc(void** data, std::size_t bytes, unsigned) {
  return call(__func__, [&] {
    *data = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    const std::scoped_lock lock(state().mutex);
    state().pinned.emplace(static_cast<std::byte*>(*data), bytes);
    return *data == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
  });
}
cudaError_t cudaFreeHost(void* data) {
  return call(__func__, [&] {
    {
      const std::scoped_lock lock(state().mutex);
      if (state().pinned.erase(static_cast<std::byte*>(data)) == 0) {
        return data == nullptr ? cudaSuccess : cudaErrorInvalidValue;
      }
    }
    std::free(data);
    return cudaSuccess;
  });
}
cudaError_t cudaHostRegister(void* data, std::size_t bytes, unsigned) {
  return call(__func__, [&] {
    const std::scoped_lock lock(state().mutex);
    return state().pinned.emplace(static_cast<std::byte*>(data), bytes).second ? cudaSuccess
                                                                               : cudaErrorInvalidValue;
  });
}
cudaError_t cudaHostUnregister(void* data) {
  return call(__func__, [&] {
    const std::scoped_lock lock(state().mutex);
    return state().pinned.erase(static_cast<std::byte*>(data)) == 1 ? cudaSuccess : cudaErrorInvalidValue;
  });
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* data) {
  return call(__func__, [&] {
    *attributes = {};
    attributes->device = device_of(data);
    attributes->type = attributes->device >= 0 ? cudaMemoryTypeDevice
                       : is_pinned(data, 1)    ? cudaMemoryTypeHost
                                               : cudaMemoryTypeUnregistered;
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return call(__func__, [&] {
    return fits_kind(to, from, kind) ? copy(to, from, bytes, stream) : cudaErrorInvalidValue;
  });
}
cudaError_t cudaMemcpyPeerAsync(void* to, int target, const void* from, int source, std::size_t bytes,
                                cudaStream_t stream) {
  return call(__func__, [&] {
    return device_of(to) == target && device_of(from) == source ? copy(to, from, bytes, stream)
                                                                : cudaErrorInvalidValue;
  });
}
cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
  return call(__func__, [&] {
    const int device = device_of(data);
    if (device < 0 || stream == nullptr || !arena(device).holds(data, bytes)) {
      return cudaErrorInvalidValue;
    }
    stream->push([=] { std::memset(data, value, bytes); });
    return cudaSuccess;
  });
}

}  // extern "C"
