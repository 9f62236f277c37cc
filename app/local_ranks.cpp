#include "app/local_ranks.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <map>
#include <poll.h>
#include <random>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/exit_code.h"
#include "app/interruption.h"
#include "base/error.h"
#include "base/tell.h"
#include "distributed/rendezvous/socket.h"

extern char** environ;

namespace millrace::app {

namespace {

[[noreturn]] void fail(const char* call) {
  throw MachineError("launch: {} failed: {}", call, std::strerror(errno));
}

std::string random_token() {
  std::random_device random;
  std::string token;
  for (int i = 0; i < 4; ++i) {
    token += fmt::format("{:08x}", random());
  }
  return token;
}

/// "NAME=value" of this process's environment with `changes` in it.
std::vector<std::string> changed_environment(std::map<std::string, std::string> changes) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!changes.contains(text.substr(0, text.find('='))) && !text.starts_with("MILLRACE_LISTENER=")) {
      all.push_back(text);
    }
  }
  for (const auto& [name, value] : changes) {
    all.push_back(fmt::format("{}={}", name, value));
  }
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) {
    result.push_back(text.data());
  }
  result.push_back(nullptr);
  return result;
}

}  // namespace

LocalRanks::LocalRanks(int count, const std::vector<std::string>& words) : count_(count) {
  sigset_t wanted;
  sigemptyset(&wanted);
  for (const int signal : {SIGCHLD, SIGINT, SIGTERM, SIGHUP}) {
    sigaddset(&wanted, signal);
  }
  sigprocmask(SIG_BLOCK, &wanted, &mask_before_);
  signals_ = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals_ < 0) {
    fail("signalfd");
  }
  // Listening before they start: nobody else can take the port.
  const Socket listener = listen_at("127.0.0.1", 0);
  const std::string token = random_token();
  for (int r = 0; r < count; ++r) {
    start(r, words, listener.descriptor(), listener.port(), token);
  }
}

LocalRanks::~LocalRanks() {
  signal_all(SIGKILL);
  for (const pid_t rank : ranks_) {
    if (rank > 0) {
      waitpid(rank, nullptr, 0);
    }
  }
  for (const Output& output : outputs_) {
    ::close(output.pipe);
  }
  ::close(signals_);
  sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
}

void LocalRanks::start(int rank, const std::vector<std::string>& words, int listener, int port,
                       const std::string& token) {
  std::map<std::string, std::string> changes{
      {"RANK", std::to_string(rank)},       {"WORLD_SIZE", std::to_string(count_)},
      {"LOCAL_RANK", std::to_string(rank)}, {"LOCAL_WORLD_SIZE", std::to_string(count_)},
      {"MASTER_ADDR", "127.0.0.1"},         {"MASTER_PORT", std::to_string(port)},
      {"MILLRACE_RUN_TOKEN", token}};
  if (rank == 0) {
    changes["MILLRACE_LISTENER"] = std::to_string(listener);
  }
  std::vector<std::string> variables = changed_environment(changes), arguments{"millrace"};
  arguments.insert(arguments.end(), words.begin(), words.end());
  const std::vector<char*> environment = pointers(variables), argument = pointers(arguments);
  std::array<int, 2> out{}, err{};
  if (pipe2(out.data(), O_CLOEXEC) != 0 || pipe2(err.data(), O_CLOEXEC) != 0) {
    fail("pipe");
  }
  const pid_t parent = getpid(), child = fork();
  if (child < 0) {
    fail("fork");
  }
  if (child == 0) {
    // It ends when this process does, even by SIGKILL; and a terminal's Ctrl-C reaches it through this
    // process alone.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    if (getppid() != parent) {
      _exit(kPeerFailed);
    }
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    if (rank == 0) {
      fcntl(listener, F_SETFD, 0);
    }
    std::signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
    execve("/proc/self/exe", argument.data(), environment.data());
    _exit(127);
  }
  ranks_.push_back(child);
  outputs_.push_back({.pipe = out[0], .rank = rank});
  outputs_.push_back({.pipe = err[0], .rank = rank, .is_error = true});
  ::close(out[1]);
  ::close(err[1]);
}

LocalRanks::Outcome LocalRanks::wait() {
  while (!outputs_.empty() || std::ranges::any_of(ranks_, [](pid_t rank) { return rank > 0; })) {
    wait_for_events();
    take_signals();
    reap();
    press(outcome_);
  }
  return outcome_;
}

void LocalRanks::wait_for_events() {
  std::vector<pollfd> wanted{{.fd = signals_, .events = POLLIN, .revents = 0}};
  for (const Output& output : outputs_) {
    wanted.push_back({.fd = output.pipe, .events = POLLIN, .revents = 0});
  }
  poll(wanted.data(), wanted.size(), 200);
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    if (wanted[i + 1].revents != 0) {
      read_from(outputs_[i]);
    }
  }
  std::erase_if(outputs_, [](const Output& output) { return output.pipe < 0; });
}

/// Whole lines at once, so that those of several ranks do not mix.
void LocalRanks::read_from(Output& output) {
  std::array<char, 1 << 14> buffer;
  const ssize_t count = read(output.pipe, buffer.data(), buffer.size());
  output.begun.append(buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  if (count <= 0) {
    ::close(std::exchange(output.pipe, -1));
    output.begun += output.begun.empty() ? "" : "\n";
  }
  std::size_t end = 0;
  while ((end = output.begun.find('\n')) != std::string::npos) {
    const std::string line = fmt::format("[{}] {}", output.rank, output.begun.substr(0, end));
    output.is_error ? tell(line) : show(line + "\n");
    output.begun.erase(0, end + 1);
  }
}

void LocalRanks::take_signals() {
  signalfd_siginfo info;
  while (read(signals_, &info, sizeof(info)) == sizeof(info)) {
    if (info.ssi_signo != SIGCHLD) {
      outcome_.stopped = true;
      signal_all(static_cast<int>(info.ssi_signo));
    }
  }
  if (noted_signal() == SIGPIPE && !std::exchange(outcome_.stopped, true)) {  // nobody reads what they print
    signal_all(SIGTERM);
  }
}

void LocalRanks::reap() {
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    int status = 0;
    if (ranks_[r] == 0 || waitpid(ranks_[r], &status, WNOHANG) <= 0) {
      continue;
    }
    ranks_[r] = 0;
    const bool is_killed = WIFSIGNALED(status);
    const int code = !is_killed         ? WEXITSTATUS(status)
                     : outcome_.stopped ? 128 + WTERMSIG(status)
                                        : kPeerFailed;
    // Of those that failed by themselves, the first; but who only saw a peer fail is not the cause.
    const bool is_cause = outcome_.code == 0 || (outcome_.code == kPeerFailed && !outcome_.killed);
    if (code == 0 || pressed_ > 0 || !is_cause) {
      continue;
    }
    outcome_.code = code;
    outcome_.killed = is_killed;
    outcome_.what = is_killed ? fmt::format("rank {} was killed by signal {} ({})", r, WTERMSIG(status),
                                            strsignal(WTERMSIG(status)))
                              : fmt::format("rank {} ended with exit code {}", r, code);
    if (!ending_since_) {
      ending_since_ = Clock::now();
    }
  }
}

/// Ends those that do not end by themselves after a failure.
void LocalRanks::press(Outcome& outcome) {
  if (!ending_since_) {
    return;
  }
  const auto passed = Clock::now() - *ending_since_;
  if (pressed_ == 0 && passed > std::chrono::seconds(2)) {
    pressed_ = 1;
    if (!outcome.stopped) {  // a second signal would end who is saving
      signal_all(SIGTERM);
    }
    signal_all(SIGCONT);  // who was stopped hears of the failure now
  } else if (pressed_ == 1 && passed > std::chrono::seconds(12)) {
    pressed_ = 2;
    signal_all(SIGKILL);
  }
}

void LocalRanks::signal_all(int signal) {
  for (const pid_t rank : ranks_) {
    if (rank > 0) {
      kill(rank, signal);
    }
  }
}

}  // namespace millrace::app
