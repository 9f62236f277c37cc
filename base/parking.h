#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace millrace {

/// Where threads wait for a condition on sequentially consistent atomics: first they spin, which takes well
/// under a microsecond when the condition is near, then give way to other threads, then sleep.
class Parking {
 public:
  using Clock = std::chrono::steady_clock;
  /// How long a waiting thread stays awake; longer would take the core from the loader's workers.
  static constexpr std::chrono::microseconds kAwake{50};

  /// Waits until `ready()` holds or `deadline` has passed; returns the last value of `ready()`.
  template <typename Ready>
  bool wait(Clock::time_point deadline, Ready&& ready) {
    for (int i = 0; i < kSpins; ++i) {
      if (ready()) {
        return true;
      }
      pause();
    }
    const Clock::time_point sleep_at = std::min(deadline, Clock::now() + kAwake);
    while (Clock::now() < sleep_at) {
      if (ready()) {
        return true;
      }
      std::this_thread::yield();
    }
    std::unique_lock lock(mutex_);
    sleepers_.fetch_add(1);
    const bool result = sleep(lock, deadline, ready);
    sleepers_.fetch_sub(1);
    return result;
  }

  /// Waits until `ready()` holds.
  template <typename Ready>
  void wait(Ready&& ready) {
    wait(Clock::time_point::max(), ready);
  }

  /// Wakes sleepers; to be called after the atomics were changed. Costs one load when nobody sleeps.
  void wake() {
    if (sleepers_.load() == 0) {
      return;
    }
    const std::lock_guard lock(mutex_);
    condition_.notify_all();
  }

 private:
  static constexpr int kSpins = 200;

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  template <typename Ready>
  bool sleep(std::unique_lock<std::mutex>& lock, Clock::time_point deadline, Ready& ready) {
    if (deadline != Clock::time_point::max()) {
      return condition_.wait_until(lock, deadline, ready);
    }
    condition_.wait(lock, ready);
    return true;
  }

  // A sleeper counts itself before its last look at the condition, a waker changes the condition before it
  // looks at the count: in one total order, one of the two sees the other.
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable condition_;
};

}  // namespace millrace
