#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "emulator.h"

namespace millrace::emulator {

/// Ends the process: what a real device would answer with nonsense or a dead context.
[[noreturn]] void die(const std::string& message);

/// What a kernel did wrong: ends the process, or leaves the kernel and is the device's error from then on
/// (`make_faults_errors`).
void fault(cudaError_t error, const std::string& what);
bool faults_are_errors();

/// What the order of blocks and the delays of streams are drawn from: MILLRACE_EMULATOR_SEED, or a new one.
std::uint64_t seed();
/// The `draw`th number of a sequence, evenly spread.
inline std::uint64_t random_bits(std::uint64_t sequence, std::uint64_t draw) {
  std::uint64_t x = seed() + 0x9e3779b97f4a7c15 * (sequence + 0x632be59bd9b4e019 * draw + 1);  // splitmix64
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

std::string name_of(const void* kernel);
/// All `__shared__` variables of this thread become not-a-number.
void poison_shared();

/// One device's memory. Each address is used once, so what is stale shows; only streams may touch it, and the
/// host's calls and the streams' never order each other.
class Arena {
 public:
  static constexpr std::size_t kTotal = std::size_t{4} << 30;
  static constexpr int kFill = 0xff;  // not a number in all floating types
  explicit Arena(std::size_t device);

  /// Whether these bytes, at most 16, are in one allocation, or no device's memory at all.
  static bool may_access(const void* data, std::size_t bytes) {
    const auto first = static_cast<std::size_t>(static_cast<const std::byte*>(data) - addresses_.base);
    const std::size_t last = first + bytes - 1;
    return first >= addresses_.bytes ||
           (first % kUnit < addresses_.valid[first / kUnit] && last % kUnit < addresses_.valid[last / kUnit]);
  }
  std::string describe(const void* data) const;  // where it lies, when that is in no allocation

  std::atomic<cudaError_t> error{cudaSuccess};  // of a kernel: nothing runs any more

  // Called by the host.
  void* take(std::size_t bytes);                          // null when there is no memory
  std::size_t forget(void* data);                         // its size, 0 when there is no such allocation
  bool holds(const void* data, std::size_t bytes) const;  // within one live allocation
  bool contains(const void* data) const;
  std::size_t free_bytes() const { return kTotal - used_.load(std::memory_order_relaxed); }
  std::size_t live() const;

  // Called by streams, in their order.
  void prepare(void* data, std::size_t bytes);  // fills it
  void clear(void* data, std::size_t bytes);    // checks what lies behind it, fills it
  void open();                                  // the first of several users lets all in
  void close();

 private:
  static constexpr std::size_t kUnit = 16;
  /// All devices', and for each unit how many of its bytes, from the first on, may be touched.
  struct Addresses {
    std::byte* base;
    std::uint8_t* valid;
    std::size_t bytes;
  };
  static inline constinit Addresses addresses_{nullptr, nullptr, 0};

  void protect(int protection) const;
  void note(void* data, std::size_t bytes, bool valid);

  std::byte* base_;
  mutable std::mutex host_;
  std::size_t next_ = 4096;  // what lies before the first allocation is no other memory
  std::map<const std::byte*, std::size_t> live_;
  std::atomic<std::size_t> used_{0};
  std::mutex users_mutex_;
  int users_ = 0;
  mutable std::mutex placed_mutex_;
  std::map<const std::byte*, std::size_t> placed_;  // as the streams see it
};

/// Where a pointer lies that no kernel may follow.
std::string describe_place(const void* data);

/// What an event waits for.
struct Mark {
  std::atomic<bool> done{false};
  std::chrono::steady_clock::time_point time;
  void wait() const { done.wait(false, std::memory_order_acquire); }
};

}  // namespace millrace::emulator

/// A stream: a thread and a queue without locks, so that only what CUDA orders is ordered.
struct CUstream_st {
  CUstream_st(int device, millrace::emulator::Arena& arena);
  ~CUstream_st();  // when all is done

  /// Work on device memory.
  void push(std::function<void()> work) { push(std::move(work), true); }
  /// Work that may wait or is the host's code, and touches no device memory.
  void push_host(std::function<void()> work) { push(std::move(work), false); }
  std::shared_ptr<millrace::emulator::Mark> record();
  void synchronize() { record()->wait(); }
  cudaError_t error() const { return arena_.error.load(std::memory_order_relaxed); }
  bool is_done() const { return done_.load(std::memory_order_acquire) == pushed_.load(); }
  int device() const { return device_; }

 private:
  struct Node {
    std::function<void()> work;
    bool memory = true;
    std::atomic<Node*> next{nullptr};
  };
  void push(std::function<void()> work, bool memory);
  void run(Node* node);
  void delay();

  const int device_;
  millrace::emulator::Arena& arena_;
  std::atomic<Node*> last_;
  std::atomic<std::uint64_t> pushed_{0}, done_{0};
  std::uint64_t number_ = 0, delays_ = 0;
  bool stopped_ = false;  // the thread's own
  std::thread thread_;
};

struct CUevent_st {
  std::shared_ptr<millrace::emulator::Mark> mark;  // of the last record; null before
  bool timed = false;
};
