#pragma once

#include <stdexcept>
#include <string>

namespace millrace::app {

/// A command was ended by a signal, in an orderly way.
class Interrupted : public std::runtime_error {
 public:
  Interrupted(int exit_code, const std::string& sentence)
      : std::runtime_error(sentence), exit_code_(exit_code) {}
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

/// From the first call on, SIGINT, SIGTERM and SIGHUP are only noted, and so is a closed standard output.
/// Those within a second of the first signal are the same request, since `timeout` sends two and a terminal
/// may send what a launcher passes on; a later one ends the process at once.
void note_signals();
/// From the first call on, writing to a pipe that nobody reads ends no process; `show` notes it.
void note_closed_output();
/// The signal that was noted first, SIGPIPE for a closed standard output, or 0.
int noted_signal();

/// Prints on standard output, at once. What cannot be printed ends nothing: a full disk is told of when the
/// command ends.
void show(const std::string& text);

}  // namespace millrace::app
