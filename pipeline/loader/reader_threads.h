#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace millrace {

/// Threads that wait for storage in place of the loader's workers. They do jobs in the order in which they
/// come.
class ReaderThreads {
 public:
  using Job = std::function<void(int thread)>;

  explicit ReaderThreads(int threads);
  /// Does what is left first.
  ~ReaderThreads() = default;

  /// A job must not throw.
  void push(Job job);

 private:
  void run(const std::stop_token& stop, int thread);

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Job> jobs_;
  std::vector<std::jthread> threads_;  // last: they end before what they use
};

}  // namespace millrace
