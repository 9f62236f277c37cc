#include "app/interruption.h"

#include <csignal>
#include <pthread.h>
#include <thread>
#include <unistd.h>

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
  // Matrix products of oneDNN keep their stack pointer in a buffer of theirs for a while: a handler's frame
  // would be written before it, over the heap. So signals go to a thread that computes nothing.
  std::thread([] {
    while (true) {
      pause();
    }
  }).detach();
  sigset_t heard_elsewhere;
  sigemptyset(&heard_elsewhere);
  for (const int each : kSignals) {
    sigaddset(&heard_elsewhere, each);
  }
  pthread_sigmask(SIG_BLOCK, &heard_elsewhere, nullptr);
}

int noted_signal() { return noted; }

}  // namespace millrace::app
