#include "pipeline/loader/reader_threads.h"

#include <utility>

namespace millrace {

ReaderThreads::ReaderThreads(int threads) {
  for (int thread = 0; thread < threads; ++thread) {
    threads_.emplace_back([this, thread](const std::stop_token& stop) { run(stop, thread); });
  }
}

void ReaderThreads::push(Job job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  changed_.notify_one();
}

void ReaderThreads::run(const std::stop_token& stop, int thread) {
  while (true) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait(lock, stop, [this] { return !jobs_.empty(); })) {
      return;
    }
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job(thread);
  }
}

}  // namespace millrace
