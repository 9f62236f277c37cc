#include "app/interruption.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <pthread.h>
#include <thread>
#include <unistd.h>

namespace millrace::app {

namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};

std::atomic<int> noted = 0;
std::atomic<std::int64_t> first_milliseconds = 0;  // when the first signal came

std::int64_t milliseconds_now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);  // which a handler may call
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

void note_if_first(int signal) {
  int none = 0;
  noted.compare_exchange_strong(none, signal);
}

void note(int signal) {
  constexpr std::int64_t kSameRequest = 1000;
  const std::int64_t now = milliseconds_now();
  std::int64_t first = 0;
  if (!first_milliseconds.compare_exchange_strong(first, now) && now - first > kSameRequest) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);  // it takes effect when this handler returns
  }
  note_if_first(signal);
}

}  // namespace

void note_signals() {
  note_closed_output();
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

void note_closed_output() { std::signal(SIGPIPE, SIG_IGN); }

int noted_signal() { return noted; }

void show(const std::string& text) {
  const bool is_written = std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
  if (!is_written && errno == EPIPE) {
    note_if_first(SIGPIPE);
  }
}

}  // namespace millrace::app
