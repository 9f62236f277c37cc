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

/// One device's memory. Each address is used once, so what is stale shows; only streams may touch it, and the
/// host's calls and the streams' never order each other.
class Arena {
 public:
  static constexpr std::size_t kTotal = std::size_t{4} << 30;
  Arena();

  // Called by the host.
  void* take(std::size_t bytes);                          // null when there is no memory
  std::size_t forget(void* data);                         // its size, 0 when there is no such allocation
  bool holds(const void* data, std::size_t bytes) const;  // within one live allocation
  bool contains(const void* data) const;
  std::size_t free_bytes() const { return kTotal - used_.load(std::memory_order_relaxed); }
  std::size_t live() const;

  // Called by streams, in their order.
  static void prepare(void* data, std::size_t bytes);  // fills it
  void clear(void* data, std::size_t bytes);           // checks what lies behind it, fills it
  void open();                                         // the first of several users lets all in
  void close();

 private:
  void protect(int protection) const;

  std::byte* base_;
  mutable std::mutex host_;
  std::size_t next_ = 0;
  std::map<const std::byte*, std::size_t> live_;
  std::atomic<std::size_t> used_{0};
  std::mutex users_mutex_;
  int users_ = 0;
};

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

  const int device_;
  millrace::emulator::Arena& arena_;
  std::atomic<Node*> last_;
  std::atomic<std::uint64_t> pushed_{0}, done_{0};
  bool stopped_ = false;  // the thread's own
  std::thread thread_;
};

struct CUevent_st {
  std::shared_ptr<millrace::emulator::Mark> mark;  // of the last record; null before
  bool timed = false;
};
