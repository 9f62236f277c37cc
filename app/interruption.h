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

/// From the first call on, one SIGINT, SIGTERM or SIGHUP is only noted; a second one ends the process at
/// once.
void note_signals();
/// The signal that was noted, or 0.
int noted_signal();

}  // namespace millrace::app
