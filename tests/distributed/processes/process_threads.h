#pragma once

#include <cstdlib>
#include <exception>
#include <functional>
#include <thread>
#include <unistd.h>

#include "distributed/group/process_group.h"
#include "distributed/rendezvous/rendezvous.h"
#include "tests/distributed/processes/on_processes.h"

namespace millrace {

/// Runs `body` as each of `size` processes of a run, which are threads here; returns what each one's error
/// said, "" without one.
inline std::vector<std::string> on_process_threads(
    int size, const ProcessGroupOptions& options,
    const std::function<void(const std::shared_ptr<ProcessGroup>&)>& body) {
  const LocalRun run(size);
  setenv("MILLRACE_LISTENER", std::to_string(dup(run.listener.descriptor())).c_str(), 1);
  std::vector<std::string> errors(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      std::shared_ptr<ProcessGroup> processes;
      try {
        processes = std::make_shared<ProcessGroup>(run.place(r), options);
        body(processes);
        processes->communicator()->barrier();
      } catch (const std::exception& error) {
        errors[static_cast<std::size_t>(r)] = error.what();
        if (processes) {
          processes->rendezvous().fail(error.what());
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  unsetenv("MILLRACE_LISTENER");
  return errors;
}

}  // namespace millrace
