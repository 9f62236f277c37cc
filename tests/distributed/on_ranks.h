#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "distributed/threads/communicator.h"

namespace millrace {

/// Runs `body` as every rank of a group, each in a thread; returns what each rank's CommunicatorError said,
/// "" without one.
inline std::vector<std::string> on_ranks(std::vector<std::unique_ptr<Communicator>> group,
                                         const std::function<void(Communicator&)>& body) {
  std::vector<std::string> errors(group.size());
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < group.size(); ++r) {
    threads.emplace_back([&, r] {
      try {
        body(*group[r]);
      } catch (const CommunicatorError& error) {
        errors[r] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return errors;
}

inline std::vector<std::string> on_ranks(int size, std::chrono::duration<double> timeout,
                                         const std::function<void(Communicator&)>& body) {
  return on_ranks(make_thread_group(size, timeout), body);
}

inline std::vector<std::string> on_ranks(int size, const std::function<void(Communicator&)>& body) {
  return on_ranks(size, std::chrono::minutes(1), body);
}

}  // namespace millrace
