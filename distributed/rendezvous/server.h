#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "distributed/rendezvous/socket.h"

namespace millrace {

/// How often the members of a run say that they live, and how long a silence means that one does not, so that
/// it is named within `timeout`.
struct Patience {
  using Duration = std::chrono::steady_clock::duration;
  explicit Patience(std::chrono::duration<double> timeout);
  Duration timeout, interval, limit;
  /// "10 s"
  std::string seconds() const;
};

/// What rank 0 serves to all ranks, itself included: it gathers texts, hears how far everybody is, and tells
/// all of the first failure. Connections without the run's token are refused and do not disturb.
class RendezvousServer {
 public:
  RendezvousServer(Socket listener, int size, std::string token, const Patience& patience);
  /// Tells the ranks that it ends; what they have not taken within a second is lost.
  ~RendezvousServer();

  /// The step that rank 0 is in: it is in this process, so no beat has to bring it.
  void set_step(std::int64_t step) { own_step_ = step; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Connection {
    Socket socket;
    std::string in, out;
    int rank = -1;  // before its hello
    Clock::time_point heard = Clock::now();
  };
  struct Rank {
    bool joined = false, left = false;
    bool gave = false;  // its part of the gathering in progress
    std::string part;
    std::int64_t step = 0, operations = 0;
    Clock::time_point moved = Clock::now();  // when `operations` last changed
  };

  void run();
  bool accepts() const;
  void wait_for_events();
  void accept_all();
  void read_from(Connection& connection);
  void greet(Connection& connection, const std::string& hello);
  void refuse(Connection& connection, const std::string& reason);
  void handle(int rank, const Frame& frame);
  void gather(int rank, std::string part);
  void lose(Connection& connection);
  void look_for_silence();
  void fail(const std::string& reason);
  void send_to_all(const Frame& frame);
  void flush();
  std::string missing() const;
  std::string last_step() const;

  Socket listener_;
  const std::string token_;
  const Patience patience_;
  std::vector<Connection> connections_;
  std::vector<Rank> ranks_;
  Clock::time_point gathering_since_ = Clock::now();  // at first, of the joining
  Clock::time_point beat_at_ = Clock::now();
  bool gathering_ = true;
  bool failed_ = false;
  int refused_ = 0;
  std::atomic<std::int64_t> own_step_{0};
  std::atomic<bool> ends_{false};
  std::thread thread_;
};

}  // namespace millrace
