#pragma once

#include <array>
#include <csignal>
#include <functional>
#include <memory>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "base/error.h"
#include "distributed/processes/gloo_communicator.h"
#include "distributed/rendezvous/rendezvous.h"

namespace millrace {

/// The places of `size` processes of this machine, and the socket at which their rank 0 listens.
struct LocalRun {
  explicit LocalRun(int ranks) : size(ranks), listener(listen_at("127.0.0.1", 0)) {}
  Place place(int rank) const {
    return {.rank = rank,
            .size = size,
            .local_rank = rank,
            .local_size = size,
            .master_host = "127.0.0.1",
            .master_port = listener.port(),
            .token = "token"};
  }
  int size;
  Socket listener;
};

using ProcessBody = std::function<void(Rendezvous&, Communicator&)>;

/// In the process of rank `rank`: runs `body` in the group and returns what its error said.
inline std::string error_of(int rank, LocalRun& run, std::chrono::duration<double> timeout,
                            const ProcessBody& body, SumOrder sum_order) {
  try {
    Socket listener = std::exchange(run.listener, Socket());
    LocalRun fresh(run.size);
    Place place = fresh.place(rank);
    place.master_port = listener.port();
    auto rendezvous =
        std::make_shared<Rendezvous>(place, timeout, rank == 0 ? std::move(listener) : Socket());
    const auto communicator = make_gloo_communicator(rendezvous, sum_order);
    body(*rendezvous, *communicator);
    communicator->barrier();
  } catch (const std::exception& caught) {
    return caught.what();
  }
  return "";
}

/// Waits for the processes, and reads from each one's pipe what its error said.
inline std::vector<std::string> wait_for(const std::vector<pid_t>& children, const std::vector<int>& pipes) {
  std::vector<std::string> errors(children.size());
  std::vector<bool> stopped(errors.size());
  // Those that go on first: a stopped one may be killed then.
  for (std::size_t r = 0; r < errors.size(); ++r) {
    int status = 0;
    waitpid(children[r], &status, WUNTRACED);
    stopped[r] = WIFSTOPPED(status);
    errors[r] = WIFEXITED(status) ? "" : "killed";
  }
  for (std::size_t r = 0; r < errors.size(); ++r) {
    if (stopped[r]) {
      kill(children[r], SIGKILL);
      waitpid(children[r], nullptr, 0);
    }
    std::array<char, 4096> text;
    const ssize_t count = read(pipes[r], text.data(), text.size());
    errors[r].append(text.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    close(pipes[r]);
  }
  return errors;
}

/// Runs `body` as each rank of a Gloo group, in a process of its own; returns what each one's error said, ""
/// without one, "killed" when it ended by a signal. A rank that stops itself is killed once the others are
/// done.
inline std::vector<std::string> on_processes(int size, std::chrono::duration<double> timeout,
                                             const ProcessBody& body, SumOrder sum_order = SumOrder::tree) {
  LocalRun run(size);
  std::vector<pid_t> children;
  std::vector<int> pipes;
  for (int r = 0; r < size; ++r) {
    std::array<int, 2> ends{};
    if (pipe(ends.data()) != 0) {
      throw MachineError("pipe failed");
    }
    const pid_t child = fork();
    if (child == 0) {
      const std::string error = error_of(r, run, timeout, body, sum_order);
      _exit(write(ends[1], error.data(), error.size()) < 0 ? 1 : 0);
    }
    close(ends[1]);
    children.push_back(child);
    pipes.push_back(ends[0]);
  }
  run.listener = Socket();
  return wait_for(children, pipes);
}

}  // namespace millrace
