#pragma once

namespace millrace::app {

/// What the command ends with; see docs/design.md.
enum ExitCode {
  kDone = 0,
  kMachineFailed = 1,
  kWrongInput = 2,
  kPeerFailed = 3,
  kInterrupted = 4,  ///< By a signal, and can be resumed.
};

}  // namespace millrace::app
