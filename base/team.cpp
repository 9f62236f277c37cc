#include "base/team.h"

#include <exception>

#include "base/error.h"

namespace millrace {

Team::Team(int size) {
  threads_.reserve(static_cast<std::size_t>(size - 1));
  try {
    for (int member = 1; member < size; ++member) {
      threads_.emplace_back([this, member] { work(member); });
    }
  } catch (const std::exception& error) {
    const std::size_t started = threads_.size();
    end();
    throw MachineError("cannot start thread {} of {}: {}; ask for fewer replicas", started + 1, size - 1,
                       error.what());
  }
}

Team::~Team() { end(); }

void Team::end() {
  job_ = nullptr;
  round_.fetch_add(1);
  start_.wake();
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

void Team::run(const std::function<void(int)>& job) {
  job_ = &job;
  running_.store(static_cast<int>(threads_.size()));
  round_.fetch_add(1);
  start_.wake();
  job(0);
  done_.wait([&] { return running_.load() == 0; });
}

void Team::work(int member) {
  for (std::uint64_t round = 1;; ++round) {
    start_.wait([&] { return round_.load() >= round; });
    if (job_ == nullptr) {
      return;
    }
    (*job_)(member);
    if (running_.fetch_sub(1) == 1) {
      done_.wake();
    }
  }
}

}  // namespace millrace
