#include "app/interruption.h"

#include <csignal>

namespace millrace::app {

namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};

volatile std::sig_atomic_t noted = 0;

void note(int signal) {
  noted = signal;
  for (const int each : kSignals) {
    std::signal(each, SIG_DFL);
  }
}

}  // namespace

void note_signals() {
  for (const int each : kSignals) {
    struct sigaction action {};
    action.sa_handler = note;
    action.sa_flags = SA_RESTART;  // no read of data fails for it
    struct sigaction before {};
    sigaction(each, nullptr, &before);
    if (before.sa_handler != SIG_IGN) {  // as under nohup
      sigaction(each, &action, nullptr);
    }
  }
}

int noted_signal() { return noted; }

}  // namespace millrace::app
