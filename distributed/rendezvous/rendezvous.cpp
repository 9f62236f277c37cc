#include "distributed/rendezvous/rendezvous.h"

#include <algorithm>
#include <cstdlib>
#include <poll.h>
#include <sys/socket.h>

#include "base/error.h"

namespace millrace {
namespace {

constexpr std::size_t kMostFromServer = std::size_t{1} << 30;

int milliseconds(Patience::Duration duration) {
  return static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(duration).count());
}

}  // namespace

Rendezvous::Rendezvous(const Place& place, std::chrono::duration<double> timeout, Socket listener)
    : place_(place), patience_(timeout) {
  if (place_.size == 1) {
    return;
  }
  if (place_.master_host.empty()) {
    throw InputError(
        "joining: {} makes this rank {} of {}, and nothing says where rank 0 listens; give --master "
        "HOST:PORT, or set MASTER_ADDR and MASTER_PORT",
        place_.told_by, place_.rank, place_.size);
  }
  if (place_.rank == 0) {
    if (!listener.is_open()) {
      listener = listen_at(place_.master_host, place_.master_port);
    }
    server_ = std::make_unique<RendezvousServer>(std::move(listener), place_.size, place_.token, patience_);
  }
  join();
  thread_ = std::thread([this] { run(); });
  try {
    const std::vector<std::string> addresses = all_gather("joining", own_address_);
    // A machine may know its own name as loopback, where the others' cannot reach it.
    const auto far = std::ranges::find_if_not(addresses, is_loopback);
    if (is_loopback(own_address_) && far != addresses.end()) {
      own_address_ = address_towards(*far);
    }
  } catch (...) {
    ends_ = true;
    thread_.join();
    throw;
  }
}

Rendezvous::~Rendezvous() {
  if (place_.size == 1) {
    return;
  }
  ends_ = true;
  thread_.join();
  send({Frame::Kind::goodbye, ""});
}

void Rendezvous::join() {
  const auto deadline = Clock::now() + patience_.timeout;
  socket_ = connect_to(place_.master_host, place_.master_port, deadline);
  own_address_ = socket_.own_address();
  send({Frame::Kind::hello, fmt::format("{}\n{}\n{}", place_.rank, place_.size, place_.token)});
  const std::string where = fmt::format("joining: {}:{}", place_.master_host, place_.master_port);
  Frame frame;
  try {
    while (!Frame::take(received_, kMostFromServer, frame)) {
      pollfd wanted{.fd = socket_.descriptor(), .events = POLLIN, .revents = 0};
      const auto left = deadline - Clock::now();
      if (left.count() <= 0) {
        throw CommunicatorError("it did not answer for {}; is rank 0 of this run listening there?",
                                patience_.seconds());
      }
      poll(&wanted, 1, milliseconds(left));
      if (!receive_some(socket_, received_) && received_.empty()) {
        throw CommunicatorError("the connection was closed without an answer; is it rank 0 of this run?");
      }
    }
    if (frame.kind == Frame::Kind::refused) {
      throw CommunicatorError("rank 0 refused this process: {}", frame.text);
    }
    if (frame.kind != Frame::Kind::welcome) {
      throw CommunicatorError("what answered there is no rank 0");
    }
  } catch (const CommunicatorError& error) {
    throw CommunicatorError("{}: {}", where, error.what());
  }
}

/// Hears what rank 0 says, and says that this rank lives.
void Rendezvous::run() {
  auto heard = Clock::now(), beat = Clock::now();
  const auto quiet = std::min<Patience::Duration>(patience_.interval, std::chrono::milliseconds(50));
  while (!ends_) {
    pollfd wanted{.fd = socket_.descriptor(), .events = POLLIN, .revents = 0};
    const bool came = poll(&wanted, 1, milliseconds(quiet)) > 0;
    const auto now = Clock::now();
    const auto lost = [&](const std::string& how) {
      fail_here(
          fmt::format("rank 0 {}; its last step was {}", how, std::max(master_step_.load(), step_.load())));
    };
    const bool open = !came || receive_some(socket_, received_);
    heard = came ? now : heard;
    try {
      for (Frame frame;
           Frame::take(received_, kMostFromServer, frame);) {  // some may have come behind the welcome
        handle(frame);
      }
    } catch (const CommunicatorError& error) {
      lost(fmt::format("sent what this program cannot read ({})", error.what()));
      return;
    }
    if (!open) {
      lost(master_left_ ? "has left the run" : "died: its connection broke");
      return;
    }
    if (now - heard > patience_.limit) {
      lost(fmt::format("hangs or is cut off: it was silent for {}", patience_.seconds()));
      return;
    }
    if (now - beat >= patience_.interval) {
      beat = now;
      send({Frame::Kind::beat, fmt::format("{} {}", step_.load(), operations_.load())});
    }
  }
}

void Rendezvous::handle(const Frame& frame) {
  if (frame.kind == Frame::Kind::failed) {
    fail_here(frame.text);
    return;
  }
  const std::lock_guard lock(mutex_);
  if (frame.kind == Frame::Kind::beat) {
    master_step_ = std::atoll(frame.text.c_str());
  } else if (frame.kind == Frame::Kind::goodbye) {
    master_left_ = true;
  } else if (frame.kind == Frame::Kind::gathered) {
    std::string parts = frame.text;
    for (Frame part; Frame::take(parts, kMostFromServer, part);) {
      gathered_.push_back(std::move(part.text));
    }
    changed_.notify_all();
  }
}

void Rendezvous::fail_here(const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_.empty()) {
      return;
    }
    failure_ = reason;
  }
  changed_.notify_all();
  const std::lock_guard lock(tell_mutex_);
  if (tell_) {
    std::exchange(tell_, nullptr)();
  }
}

void Rendezvous::send(const Frame& frame) {
  const std::lock_guard lock(send_mutex_);
  std::string bytes = frame.to_bytes();
  const auto deadline = Clock::now() + patience_.timeout;
  while (send_some(socket_, bytes) && !bytes.empty()) {
    if (Clock::now() > deadline) {
      shutdown(socket_.descriptor(), SHUT_RDWR);  // half a message went out; the other thread sees the end
      return;
    }
    pollfd wanted{.fd = socket_.descriptor(), .events = POLLOUT, .revents = 0};
    poll(&wanted, 1, milliseconds(patience_.interval));
  }
}

std::vector<std::string> Rendezvous::all_gather(std::string_view about, const std::string& mine) {
  if (place_.size == 1) {
    return {mine};
  }
  send({Frame::Kind::gather, fmt::format("{}\n{}", about, mine)});
  std::unique_lock lock(mutex_);
  // Rank 0 ends it with a failure when somebody stays away, and its silence is a failure as well.
  changed_.wait(lock, [&] { return !failure_.empty() || !gathered_.empty(); });
  if (gathered_.empty()) {
    throw CommunicatorError("{}", failure_);
  }
  std::vector<std::string> all = std::exchange(gathered_, {});
  for (std::size_t r = 0; r < all.size(); ++r) {
    const std::size_t end = std::min(all[r].find('\n'), all[r].size());
    if (const std::string theirs = all[r].substr(0, end); theirs != about) {
      throw InputError(
          "the processes differ: rank {} has come to '{}', and rank {} to '{}'; start all of them alike", r,
          theirs, place_.rank, about);
    }
    all[r].erase(0, end + 1);
  }
  return all;
}

void Rendezvous::set_step(std::int64_t step) {
  step_ = step;
  if (server_) {
    server_->set_step(step);
  }
}

void Rendezvous::fail(const std::string& reason) {
  if (place_.size > 1) {
    send({Frame::Kind::failed, reason});
  }
}

std::string Rendezvous::failure(std::chrono::duration<double> patience) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience, [&] { return !failure_.empty(); });
  return failure_;
}

void Rendezvous::on_failure(std::function<void()> tell) {
  const std::lock_guard lock(tell_mutex_);
  tell_ = std::move(tell);
  if (tell_ && !failure().empty()) {
    std::exchange(tell_, nullptr)();
  }
}

}  // namespace millrace
