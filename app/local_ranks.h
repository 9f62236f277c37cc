#pragma once

#include <chrono>
#include <csignal>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace millrace::app {

/// Processes of this program on this machine that train together: started with torchrun's variables, their
/// lines shown with the rank in front, ended together. They die with this process, however it dies.
class LocalRanks {
 public:
  /// Starts `count` processes with these words on their command lines. @throws MachineError
  LocalRanks(int count, const std::vector<std::string>& words);
  /// Leaves no process behind.
  ~LocalRanks();
  LocalRanks(const LocalRanks&) = delete;
  LocalRanks& operator=(const LocalRanks&) = delete;

  struct Outcome {
    int code = 0;          ///< 0, or that of the rank that failed first; when that was killed 3, or 128 + the
                           ///< signal that was passed on.
    bool stopped = false;  ///< A signal to this process, passed on, or its closed output made them end.
    bool killed = false;   ///< That rank was, by a signal that did not come from here.
    std::string what = {};  ///< "rank 2 ended with exit code 1"
  };
  /// Passes on what they print and the signals that come, until all have ended. When one fails, the others
  /// are given two seconds to say so themselves, then SIGTERM, and SIGKILL ten seconds later; likewise, but
  /// without the SIGTERM, when one ends after a signal that was passed on.
  Outcome wait();

 private:
  using Clock = std::chrono::steady_clock;
  struct Output {
    int pipe;
    int rank;
    bool is_error = false;   // standard error, not standard output
    std::string begun = {};  // a line without its end
  };
  void start(int rank, const std::vector<std::string>& words, int listener, int port,
             const std::string& token);
  void wait_for_events();
  void read_from(Output& output);
  void take_signals();
  void reap();
  void press(Outcome& outcome);
  void signal_all(int signal);

  std::vector<pid_t> ranks_;  // 0 once reaped
  std::vector<Output> outputs_;
  int count_;
  sigset_t mask_before_{};
  int signals_ = -1;
  Outcome outcome_;
  std::optional<Clock::time_point> ending_since_;
  int pressed_ = 0;  // how hard: 1 after SIGTERM, 2 after SIGKILL
};

}  // namespace millrace::app
