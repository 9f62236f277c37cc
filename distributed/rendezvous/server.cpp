#include "distributed/rendezvous/server.h"

#include <algorithm>
#include <cstdio>
#include <poll.h>
#include <sys/socket.h>

#include "base/error.h"
#include "base/tell.h"

namespace millrace {
namespace {

constexpr std::size_t kMostBeforeHello = 4096, kMostAfterHello = std::size_t{1} << 26;
constexpr int kMostStrangers = 64;  // connections that have not said who they are; more wait in the kernel
constexpr std::chrono::seconds kHelloTime{10};

}  // namespace

Patience::Patience(std::chrono::duration<double> timeout_seconds)
    : timeout(std::chrono::duration_cast<Duration>(
          std::chrono::duration<double>(std::clamp(timeout_seconds.count(), 0.1, 1e8)))),
      interval(std::min<Duration>(timeout / 10, std::chrono::seconds(1))),
      limit(timeout - 2 * interval) {}

std::string Patience::seconds() const {
  return fmt::format("{:.3g} s", std::chrono::duration<double>(timeout).count());
}

RendezvousServer::RendezvousServer(Socket listener, int size, std::string token, const Patience& patience)
    : listener_(std::move(listener)),
      token_(std::move(token)),
      patience_(patience),
      ranks_(static_cast<std::size_t>(size)),
      thread_([this] { run(); }) {}

RendezvousServer::~RendezvousServer() {
  ends_ = true;
  thread_.join();
}

void RendezvousServer::run() {
  while (!ends_) {
    wait_for_events();
    accept_all();
    for (Connection& connection : connections_) {
      read_from(connection);
    }
    std::erase_if(connections_, [](const Connection& connection) { return !connection.socket.is_open(); });
    look_for_silence();
    flush();
  }
  if (!failed_) {
    send_to_all({Frame::Kind::goodbye, ""});
  }
  const auto until = Clock::now() + std::chrono::seconds(1);
  const auto unsent = [](const Connection& connection) { return !connection.out.empty(); };
  for (flush(); std::ranges::any_of(connections_, unsent) && Clock::now() < until; flush()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

bool RendezvousServer::accepts() const {
  return std::ranges::count(connections_, -1, &Connection::rank) < kMostStrangers;
}

void RendezvousServer::wait_for_events() {
  const int listener = accepts() ? listener_.descriptor() : -1;  // poll skips it
  std::vector<pollfd> wanted{{.fd = listener, .events = POLLIN, .revents = 0}};
  for (const Connection& connection : connections_) {
    const short events = connection.out.empty() ? POLLIN : POLLIN | POLLOUT;
    wanted.push_back({.fd = connection.socket.descriptor(), .events = events, .revents = 0});
  }
  // Short, so that the destructor is not held up.
  const auto most = std::min<Patience::Duration>(patience_.interval, std::chrono::milliseconds(50));
  poll(wanted.data(), wanted.size(),
       static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(most).count()));
}

void RendezvousServer::accept_all() {
  while (accepts()) {
    Socket socket(accept4(listener_.descriptor(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.is_open()) {
      return;
    }
    connections_.push_back({.socket = std::move(socket), .in = {}, .out = {}});
  }
}

void RendezvousServer::read_from(Connection& connection) {
  if (!connection.socket.is_open()) {
    return;
  }
  const bool open = receive_some(connection.socket, connection.in);
  try {
    Frame frame;
    while (Frame::take(connection.in, connection.rank < 0 ? kMostBeforeHello : kMostAfterHello, frame)) {
      connection.heard = Clock::now();
      if (connection.rank >= 0) {
        handle(connection.rank, frame);
        continue;
      }
      greet(connection, frame.kind == Frame::Kind::hello ? frame.text : "");
      if (connection.rank < 0) {
        return;
      }
    }
  } catch (const CommunicatorError& error) {
    refuse(connection, error.what());
    return;
  }
  if (!open) {
    lose(connection);
  } else if (connection.rank < 0 && Clock::now() - connection.heard > kHelloTime) {
    refuse(connection, "it did not say who it is");
  }
}

/// A hello holds rank, size and token, a line each.
void RendezvousServer::greet(Connection& connection, const std::string& hello) {
  int rank = -1, size = 0, end = 0;
  if (std::sscanf(hello.c_str(), "%d\n%d\n%n", &rank, &size, &end) != 2 || end == 0 ||
      hello.substr(static_cast<std::size_t>(end)) != token_) {
    refuse(connection, "it has not the token of this run; another run needs another port");
    return;
  }
  if (size != std::ssize(ranks_) || rank < 0 || rank >= size) {
    refuse(connection, fmt::format("it came as rank {} of {}, and this run has {}; start all processes alike",
                                   rank, size, ranks_.size()));
    return;
  }
  Rank& known = ranks_[static_cast<std::size_t>(rank)];
  if (known.joined) {
    refuse(connection, fmt::format("rank {} is here already; give every process a rank of its own", rank));
    return;
  }
  known.joined = true;
  connection.rank = rank;
  connection.out += Frame{Frame::Kind::welcome, ""}.to_bytes();
}

void RendezvousServer::refuse(Connection& connection, const std::string& reason) {
  if (++refused_ <= 10) {
    tell(fmt::format("millrace: rank 0 refused a connection from {}: {}", connection.socket.peer(), reason));
  }
  std::string bytes = Frame{Frame::Kind::refused, reason}.to_bytes();
  send_some(connection.socket, bytes);
  lose(connection);
}

void RendezvousServer::lose(Connection& connection) {
  connection.socket = Socket();
  const int rank = connection.rank;
  if (rank >= 0 && !ranks_[static_cast<std::size_t>(rank)].left) {
    fail(fmt::format("rank {} died: its connection broke; {}", rank, last_step()));
  }
}

void RendezvousServer::handle(int rank, const Frame& frame) {
  Rank& from = ranks_[static_cast<std::size_t>(rank)];
  switch (frame.kind) {
    case Frame::Kind::gather:
      gather(rank, frame.text);
      break;
    case Frame::Kind::beat: {
      const std::int64_t before = from.operations;
      long long step = 0, operations = 0;
      std::sscanf(frame.text.c_str(), "%lld %lld", &step, &operations);
      from.step = step;
      from.operations = operations;
      if (operations != before) {
        from.moved = Clock::now();
      }
      break;
    }
    case Frame::Kind::failed:
      fail(fmt::format("rank {} failed: {}", rank, frame.text));
      break;
    case Frame::Kind::goodbye:
      from.left = true;
      break;
    default:
      throw CommunicatorError("what came is no message to rank 0");
  }
}

void RendezvousServer::gather(int rank, std::string part) {
  Rank& from = ranks_[static_cast<std::size_t>(rank)];
  from.gave = true;
  from.part = std::move(part);
  if (!gathering_) {
    gathering_ = true;
    gathering_since_ = Clock::now();
  }
  if (!std::ranges::all_of(ranks_, &Rank::gave)) {
    return;
  }
  std::string all;
  for (Rank& one : ranks_) {
    all += Frame{Frame::Kind::gather, one.part}.to_bytes();
    one.gave = false;
  }
  gathering_ = false;
  send_to_all({Frame::Kind::gathered, all});
}

void RendezvousServer::look_for_silence() {
  const auto now = Clock::now();
  std::int64_t most = 0;
  for (const Rank& rank : ranks_) {
    most = std::max(most, rank.operations);
  }
  for (const Connection& connection : connections_) {
    const int r = connection.rank;
    if (r < 0 || ranks_[static_cast<std::size_t>(r)].left) {
      continue;
    }
    const Rank& rank = ranks_[static_cast<std::size_t>(r)];
    const bool is_behind = rank.operations < most && now - rank.moved > patience_.limit;
    if (now - connection.heard > (is_behind ? 3 * patience_.interval : patience_.limit)) {
      fail(fmt::format("rank {} hangs or is cut off: it was silent for {}; {}", r, patience_.seconds(),
                       last_step()));
    } else if (is_behind) {
      fail(fmt::format("rank {} stayed away for {}, and the others wait for it; {}", r, patience_.seconds(),
                       last_step()));
    }
  }
  if (gathering_ && now - gathering_since_ > patience_.limit) {
    fail(fmt::format("timed out after {}: {}", patience_.seconds(), missing()));
  }
  if (now - beat_at_ >= patience_.interval) {
    beat_at_ = now;
    send_to_all({Frame::Kind::beat, std::to_string(own_step_.load())});
  }
}

void RendezvousServer::fail(const std::string& reason) {
  if (!failed_) {
    failed_ = true;
    send_to_all({Frame::Kind::failed, reason});
  }
}

void RendezvousServer::send_to_all(const Frame& frame) {
  const std::string bytes = frame.to_bytes();
  for (Connection& connection : connections_) {
    if (connection.rank >= 0) {
      connection.out += bytes;
    }
  }
}

void RendezvousServer::flush() {
  // Rank 0 last: its process ends on a failure, and the others should have heard of it by then.
  for (const bool own : {false, true}) {
    for (Connection& connection : connections_) {
      if ((connection.rank == 0) == own && connection.socket.is_open() &&
          !send_some(connection.socket, connection.out)) {
        connection.out.clear();
      }
    }
  }
}

/// Who did not give its part of a gathering.
std::string RendezvousServer::missing() const {
  constexpr int kNamed = 8;
  std::string names;
  int count = 0;
  for (int r = 0; r < std::ssize(ranks_); ++r) {
    const Rank& rank = ranks_[static_cast<std::size_t>(r)];
    if (!rank.gave && ++count <= kNamed) {
      names += fmt::format("{}rank {} {}", names.empty() ? "" : ", ", r,
                           rank.joined ? "stayed away" : "did not join");
    }
  }
  return count > kNamed ? fmt::format("{}, and {} more", names, count - kNamed) : names;
}

/// Of any rank: a step needs all of them, so that the one which is furthest tells of the others too.
std::string RendezvousServer::last_step() const {
  std::int64_t step = own_step_;
  for (const Rank& rank : ranks_) {
    step = std::max(step, rank.step);
  }
  return fmt::format("its last step was {}", step);
}

}  // namespace millrace
