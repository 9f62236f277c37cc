#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <functional>
#include <string>

/// What both fakes ask of the emulated device.
namespace millrace::fakes {

/// Memory that a call reads or writes.
struct Range {
  const char* name;
  const void* data;
  std::size_t bytes;
  std::size_t alignment = 1;
};

inline bool is_aligned(const void* data, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(data) % bytes == 0;
}
int device_of(cudaStream_t stream);
/// Whether all of the range lies in one live allocation of the device.
bool is_held(const Range& range, int device);
inline bool overlap(const Range& a, const Range& b) {
  const auto *x = static_cast<const std::byte*>(a.data), *y = static_cast<const std::byte*>(b.data);
  return x < y + b.bytes && y < x + a.bytes;
}

/// Enqueues `work`, which has the workspace to itself: it is written first, and still has to be so behind it.
void enqueue(cudaStream_t stream, void* workspace, std::size_t bytes, std::function<void()> work);

/// A number that follows from a seed and what it is about.
std::uint64_t draw(std::uint64_t seed, const std::string& about);
/// MILLRACE_REFUSE_LIBRARIES, or 0: the seed by which the fakes refuse some algorithms and engines.
std::uint64_t& refusing_seed();

}  // namespace millrace::fakes
