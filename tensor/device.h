#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

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

/// Reads "cpu", "cuda" (every GPU that is there) or "cuda:1" (that one). @throws InputError as Device::parse.
std::vector<Device> parse_devices(std::string_view text);
/// "cpu", "cuda:0, cuda:1": neighbours that are one are named once.
std::string to_string(std::span<const Device> devices);

/// GPUs that can be used now; 0 without the CUDA build, the driver or a device.
int cuda_device_count();
/// Why `cuda_device_count()` is 0, in one sentence; empty when it is not.
std::string cuda_unavailable_reason();

/// A queue of work on a device. On the CPU work is done at once, in the calling thread, and a stream is
/// empty.
class Stream {
 public:
  Stream() = default;
  /// A cudaStream_t that its owner keeps alive.
  Stream(Device device, void* native) : device_(device), native_(native) {}
  /// A further stream, for work beside that of the current one; it lives as long as a copy of it does.
  static Stream make(Device device);
  Device device() const { return device_; }
  /// A cudaStream_t, or null.
  void* native() const { return native_; }
  bool operator==(const Stream& other) const { return device_ == other.device_ && native_ == other.native_; }
  /// Blocks until all work enqueued so far is done. @throws MachineError when some of it failed.
  void synchronize() const;

 private:
  Device device_;
  void* native_ = nullptr;
  std::shared_ptr<void> owner_;
};

/// The stream that kernels of this thread are enqueued on: one of the thread's own, unless a guard says
/// otherwise.
Stream current_stream(Device device);

/// Makes a stream this thread's current one on its device for as long as the guard lives.
class StreamGuard {
 public:
  explicit StreamGuard(const Stream& stream);
  ~StreamGuard();
  StreamGuard(const StreamGuard&) = delete;
  StreamGuard& operator=(const StreamGuard&) = delete;

 private:
  Stream stream_;
  void* before_ = nullptr;
};

/// A point in a stream's work that other streams, or the host, can wait for. On the CPU it is always past.
class Event {
 public:
  Event() = default;
  ~Event();
  Event(Event&& other) noexcept;
  Event& operator=(Event&& other) noexcept;

  /// Marks the end of what is enqueued on `stream` now. May be called again.
  void record(const Stream& stream);
  /// What is enqueued on `stream` from now on waits for the mark. The host does not.
  void make_wait(const Stream& stream) const;
  /// Whether the work before the mark is done; true when nothing was recorded. @throws MachineError.
  bool is_done() const;
  /// Blocks until it is. @throws MachineError, and InputError for an index or a label out of range that a
  /// kernel was given.
  void synchronize() const;
  /// The same for whoever only needs the memory: leaves what kernels found to those who read their numbers.
  void await() const;

 private:
  Device device_;
  void* native_ = nullptr;
};

}  // namespace millrace
