#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace millrace {

/// Where a tensor lives: the CPU, or one of the GPUs.
struct Device {
  enum class Kind : std::uint8_t { cpu, cuda };
  Kind kind = Kind::cpu;
  int index = 0;

  bool is_cpu() const { return kind == Kind::cpu; }
  bool is_cuda() const { return kind == Kind::cuda; }
  bool operator==(const Device&) const = default;

  /// "cpu", "cuda:0"
  std::string to_string() const;
  /// Reads "cpu", "cuda" or "cuda:1". @throws InputError on anything else, and when this build or
  /// machine has no such device; the message says what is missing.
  static Device parse(std::string_view text);
};

inline constexpr Device kCpu{};

/// GPUs that can be used now; 0 without the CUDA build, the driver or a device.
int cuda_device_count();
/// Why `cuda_device_count()` is 0, in one sentence; empty when it is not.
std::string cuda_unavailable_reason();

/// A queue of work on a device. On the CPU work is done at once, in the calling thread, and a stream is
/// empty.
class Stream {
 public:
  Stream() = default;
  Stream(Device device, void* native) : device_(device), native_(native) {}
  Device device() const { return device_; }
  /// A cudaStream_t, or null.
  void* native() const { return native_; }
  /// Blocks until all work enqueued so far is done.
  void synchronize() const;

 private:
  Device device_;
  void* native_ = nullptr;
};

/// The stream that kernels of this thread are enqueued on.
Stream current_stream(Device device);

}  // namespace millrace
