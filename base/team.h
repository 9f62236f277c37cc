#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "base/parking.h"

namespace millrace {

/// Threads that live as long as the team and run one job at a time together. Member 0 is the thread that
/// calls `run`. Between jobs the others stay awake for Parking::kAwake, then sleep.
class Team {
 public:
  /// @throws MachineError when the machine gives no more threads.
  explicit Team(int size);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return static_cast<int>(threads_.size()) + 1; }
  /// Runs `job(member)` on all members and returns when all are done. The job must not throw.
  void run(const std::function<void(int member)>& job);

 private:
  void work(int member);
  void end();

  const std::function<void(int)>* job_ = nullptr;
  std::atomic<std::uint64_t> round_{0};  // of jobs; the last one, without a job, ends the threads
  std::atomic<int> running_{0};
  Parking start_;
  Parking done_;
  std::vector<std::thread> threads_;
};

}  // namespace millrace
