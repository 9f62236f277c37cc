#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "fake_nccl.h"

/// What the fake's sources share.
namespace millrace::fake_nccl {

using Bytes = std::vector<std::byte>;
using Clock = std::chrono::steady_clock;

/// What the members of a group share.
struct World {
  explicit World(int ranks) : size(ranks) {}
  const int size;
  std::mutex mutex;
  std::condition_variable changed;
  int joined = 0;
  std::set<int> devices;
  std::map<std::pair<int, int>, std::deque<Bytes>> mail;  // by sender and receiver
};

}  // namespace millrace::fake_nccl

struct ncclComm : std::enable_shared_from_this<ncclComm> {
  std::shared_ptr<millrace::fake_nccl::World> world;
  int rank = 0;
  std::atomic<bool> inside{false};
  bool aborted = false;  // under the world's mutex
  int groups = 0;
  int polls = 0;  // until the pending work lies in its stream
  std::vector<std::pair<cudaStream_t, std::function<void()>>> pending;
  std::atomic<int> on_the_way{0};
  bool never_settles = false;
  std::optional<std::chrono::steady_clock::time_point> lost_at;
};

namespace millrace::fake_nccl {

struct State {
  std::mutex mutex;
  Plan plan;
  std::vector<std::string> misuses;
  std::map<ncclComm_t, std::shared_ptr<ncclComm>> communicators;
  std::map<std::string, std::weak_ptr<World>> worlds;
  std::set<void*> blocks, windows;
  int ids = 0;
};
State& state();
void misuse(const std::string& what);

/// A call on a communicator: two at once show.
class Call {
 public:
  Call(ncclComm_t handle, const char* name);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  explicit operator bool() const { return communicator_ != nullptr; }
  ncclComm* operator->() const { return communicator_.get(); }

 private:
  std::shared_ptr<ncclComm> communicator_;
};

/// All-reduce and its like, and the groups of them.
void fill_operations(NcclLibrary& library);

}  // namespace millrace::fake_nccl
