#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "distributed/rendezvous/place.h"
#include "distributed/rendezvous/server.h"

namespace millrace {

/// How the processes of a run find each other, agree on values, and hear of a failure, whatever carries their
/// tensors: every rank has a connection to rank 0, which listens at the master's address.
///
/// In the background each rank says that it lives and how far it is. The first rank to die, to hang, to be
/// cut off or to fail is named to all others within the timeout.
class Rendezvous {
 public:
  /// Returns when all ranks have joined. In a run of one nothing is opened. Rank 0 may bring the socket that
  /// listens at the master's address.
  /// @throws CommunicatorError naming who did not come within `timeout`, or why this process was refused.
  /// @throws InputError when `place` has no master. @throws MachineError when rank 0 cannot listen there.
  Rendezvous(const Place& place, std::chrono::duration<double> timeout, Socket listener = Socket());
  ~Rendezvous();
  Rendezvous(const Rendezvous&) = delete;
  Rendezvous& operator=(const Rendezvous&) = delete;

  const Place& place() const { return place_; }
  Patience::Duration timeout() const { return patience_.timeout; }
  /// The address by which this machine reaches rank 0's and, where there are others, is reached by them.
  const std::string& own_address() const { return own_address_; }

  /// What all ranks gave, in their order. `about` is one line that says what, and how, all of them are to do
  /// it.
  /// @throws InputError when a rank gave something about another thing, CommunicatorError.
  std::vector<std::string> all_gather(std::string_view about, const std::string& mine);
  /// For the messages of failures: the steps that this rank has done.
  void set_step(std::int64_t step);
  /// Counts an operation of all ranks that this one has come to, so that who stays away from it is seen.
  void count_operation() { ++operations_; }
  /// Tells all ranks that this one failed.
  void fail(const std::string& reason);
  /// What failed first; empty while nothing did. Waits up to `patience` for it.
  std::string failure(std::chrono::duration<double> patience = {});
  /// Called once, in another thread, when something failed; at once if it has already. Not called any more
  /// when this returns with another one.
  void on_failure(std::function<void()> tell);

 private:
  using Clock = std::chrono::steady_clock;
  void join();
  void run();
  void handle(const Frame& frame);
  void fail_here(const std::string& reason);
  void send(const Frame& frame);

  const Place place_;
  const Patience patience_;
  std::string own_address_;
  std::unique_ptr<RendezvousServer> server_;
  Socket socket_;
  std::string received_;  // what is not yet a whole frame
  std::atomic<std::int64_t> step_{0}, operations_{0};
  std::atomic<std::int64_t> master_step_{0};

  std::mutex send_mutex_;
  std::mutex mutex_;  // for the four below
  std::condition_variable changed_;
  std::string failure_;
  bool master_left_ = false;
  std::vector<std::string> gathered_;

  std::mutex tell_mutex_;
  std::function<void()> tell_;

  std::atomic<bool> ends_{false};
  std::thread thread_;
};

}  // namespace millrace
