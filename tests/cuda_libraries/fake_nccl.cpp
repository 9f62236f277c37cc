#include "fake_nccl.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "internal.h"

namespace millrace::fake_nccl {
namespace {

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

}  // namespace
}  // namespace millrace::fake_nccl

using millrace::fake_nccl::World;

struct ncclComm : std::enable_shared_from_this<ncclComm> {
  std::shared_ptr<World> world;
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
namespace {

struct State {
  std::mutex mutex;
  Plan plan;
  std::vector<std::string> misuses;
  std::map<ncclComm_t, std::shared_ptr<ncclComm>> communicators;
  std::map<std::string, std::weak_ptr<World>> worlds;
  std::set<void*> blocks, windows;
  int ids = 0;
};
State& state() {
  static State state;
  return state;
}

void misuse(const std::string& what) {
  const std::lock_guard lock(state().mutex);
  state().misuses.push_back(what);
}

/// A call on a communicator: two at once show.
class Call {
 public:
  Call(ncclComm_t handle, const char* name) {
    {
      const std::lock_guard lock(state().mutex);
      const auto found = state().communicators.find(handle);
      if (found != state().communicators.end()) {
        communicator_ = found->second;
      }
    }
    if (!communicator_) {
      misuse(std::string(name) + " on a communicator that is gone");
    } else if (communicator_->inside.exchange(true)) {
      misuse(std::string(name) + " while another thread is inside");
    }
  }
  ~Call() {
    if (communicator_) {
      communicator_->inside = false;
    }
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  explicit operator bool() const { return communicator_ != nullptr; }
  ncclComm* operator->() const { return communicator_.get(); }

 private:
  std::shared_ptr<ncclComm> communicator_;
};

/// One operation as messages: what is sent at once, and what is done with what arrives. `take(rank)` waits.
using Take = std::function<Bytes(int rank)>;
struct Operation {
  std::vector<std::tuple<int, const void*, std::size_t>> sends;
  std::function<void(const Take&)> receive;
};
struct Group {
  int depth = 0;
  std::map<ncclComm_t, std::pair<cudaStream_t, std::vector<Operation>>> calls;
};
thread_local Group group;

struct Aborted {};

Bytes take(ncclComm& self, int from) {
  std::unique_lock lock(self.world->mutex);
  auto& box = self.world->mail[{from, self.rank}];
  self.world->changed.wait(lock, [&] { return self.aborted || !box.empty(); });
  if (self.aborted) {
    throw Aborted{};
  }
  Bytes bytes = std::move(box.front());
  box.pop_front();
  return bytes;
}

void wait_for_abort(ncclComm& self) {
  std::unique_lock lock(self.world->mutex);
  self.world->changed.wait(lock, [&] { return self.aborted; });
  throw Aborted{};
}

/// In the stream's thread.
void run(ncclComm& self, const std::vector<Operation>& operations, Fault fault, bool out_of_order) {
  if (fault != Fault::none) {
    wait_for_abort(self);
  }
  if (out_of_order) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3 * (self.world->size - self.rank)));
  }
  for (const Operation& operation : operations) {
    for (const auto& [to, data, bytes] : operation.sends) {
      const auto* from = static_cast<const std::byte*>(data);
      Bytes copy(from, from + bytes);
      const std::lock_guard lock(self.world->mutex);
      self.world->mail[{self.rank, to}].push_back(std::move(copy));
      self.world->changed.notify_all();
    }
  }
  for (const Operation& operation : operations) {
    if (operation.receive) {
      operation.receive([&](int from) { return take(self, from); });
    }
  }
}

ncclResult_t add(const char* name, ncclComm_t handle, cudaStream_t stream, Operation operation) {
  const Call call(handle, name);
  if (!call) {
    return ncclInvalidArgument;
  }
  if (group.depth == 0) {
    misuse(std::string(name) + " outside of a group");
  }
  if (!call->pending.empty()) {
    misuse(std::string(name) + " before the last call has settled");
  }
  {
    const std::lock_guard lock(state().mutex);
    if (state().plan.seen) {
      state().plan.seen(name);
    }
  }
  auto& [on, operations] = group.calls[handle];
  on = stream;
  operations.push_back(std::move(operation));
  return ncclSuccess;
}

ncclResult_t end_group(ncclComm_t handle, cudaStream_t stream, std::vector<Operation> operations) {
  Plan plan;
  {
    const std::lock_guard lock(state().mutex);
    plan = state().plan;
  }
  const Call call(handle, "ncclGroupEnd");
  if (!call) {
    return ncclInvalidArgument;
  }
  const bool wrong = ++call->groups == plan.nth && call->rank == plan.rank;
  const Fault fault = wrong ? plan.fault : Fault::none;
  if (fault == Fault::refuses) {
    return ncclInvalidUsage;
  }
  call->never_settles = fault == Fault::never_settles;
  if (fault == Fault::reports_late) {
    call->lost_at = Clock::now() + std::chrono::milliseconds(50);
  }
  call->polls = 3;
  ++call->on_the_way;
  call->pending.emplace_back(stream, [self = call->shared_from_this(), operations = std::move(operations),
                                      fault, out_of_order = plan.out_of_order] {
    try {
      run(*self, operations, fault, out_of_order);
    } catch (const Aborted&) {
    }
    --self->on_the_way;
  });
  return ncclInProgress;
}

template <typename T>
void add_up(std::byte* into, const std::byte* from, std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += sizeof(T)) {
    T a, b;
    std::memcpy(&a, into + at, sizeof(T));
    std::memcpy(&b, from + at, sizeof(T));
    a += b;
    std::memcpy(into + at, &a, sizeof(T));
  }
}

/// Bytes [begin, begin + bytes) of all ranks' send buffers, added up from rank 0.
void receive_sum(const Take& take, const ncclComm& self, const std::byte* own, std::byte* out,
                 std::size_t bytes, ncclDataType_t type) {
  Bytes sum;
  for (int r = 0; r < self.world->size; ++r) {
    const Bytes next = r == self.rank ? Bytes(own, own + bytes) : take(r);
    if (r == 0) {
      sum = next;
    } else if (type == ncclFloat64) {
      add_up<double>(sum.data(), next.data(), bytes);
    } else {
      add_up<float>(sum.data(), next.data(), bytes);
    }
  }
  std::memcpy(out, sum.data(), bytes);
}

std::size_t size_of_type(ncclDataType_t type) {
  return type == ncclFloat64 ? 8 : type == ncclFloat32 ? 4 : 1;
}

template <typename Visit>
void visit_peers(const ncclComm& self, Visit&& visit) {
  for (int r = 0; r < self.world->size; ++r) {
    if (r != self.rank) {
      visit(r);
    }
  }
}

/// Runs `work(stream)` on a stream of its own and waits for it.
template <typename Work>
void at_once(Work&& work) {
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  work(stream);
  cudaStreamSynchronize(stream);
  cudaStreamDestroy(stream);
}

void fill_management(NcclLibrary& library) {
  library.GetVersion = [](int* version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
  };
  library.GetUniqueId = [](ncclUniqueId* id) {
    const std::lock_guard lock(state().mutex);
    *id = {};
    const std::string text = std::to_string(++state().ids);
    std::memcpy(id->internal, text.data(), text.size());
    return ncclSuccess;
  };
  library.GetErrorString = [](ncclResult_t result) -> const char* {
    return result == ncclRemoteError ? "remote process exited or there was a network error" : "invalid usage";
  };
  library.GetLastError = [](ncclComm_t) -> const char* { return "said by the fake"; };
  library.CommInitRankConfig = [](ncclComm_t* out, int size, ncclUniqueId id, int rank,
                                  ncclConfig_t* config) {
    if (config->blocking != 0) {
      misuse("a communicator that blocks");
    }
    auto made = std::make_shared<ncclComm>();
    const std::lock_guard lock(state().mutex);
    std::weak_ptr<World>& known = state().worlds[id.internal];
    made->world = known.lock();
    if (!made->world) {
      made->world = std::make_shared<World>(size);
      known = made->world;
    }
    made->rank = rank;
    const std::lock_guard world_lock(made->world->mutex);
    ++made->world->joined;
    int device = 0;
    cudaGetDevice(&device);
    if (!made->world->devices.insert(device).second) {
      state().misuses.emplace_back("two ranks on one GPU");
    }
    *out = made.get();
    state().communicators[made.get()] = made;
    return ncclInProgress;
  };
  library.CommGetAsyncError = [](ncclComm_t handle, ncclResult_t* result) {
    const Call call(handle, "ncclCommGetAsyncError");
    if (!call) {
      return ncclInvalidArgument;
    }
    *result = ncclSuccess;
    const std::lock_guard lock(call->world->mutex);
    if (call->lost_at && Clock::now() >= *call->lost_at) {
      *result = ncclRemoteError;
    } else if (call->world->joined < call->world->size || call->never_settles ||
               (!call->pending.empty() && --call->polls > 0)) {
      *result = ncclInProgress;
    } else {
      for (auto& [stream, work] : call->pending) {
        stream->push(std::move(work));
      }
      call->pending.clear();
    }
    return ncclSuccess;
  };
  library.CommDestroy = [](ncclComm_t handle) {
    const Call call(handle, "ncclCommDestroy");
    if (call && call->on_the_way != 0) {
      misuse("ncclCommDestroy with work on the way");
    }
    const std::lock_guard lock(state().mutex);
    state().communicators.erase(handle);
    return ncclSuccess;
  };
  library.CommAbort = [](ncclComm_t handle) {
    const Call call(handle, "ncclCommAbort");
    if (call) {
      const std::lock_guard lock(call->world->mutex);
      call->aborted = true;
      call->world->changed.notify_all();
    }
    const std::lock_guard lock(state().mutex);
    state().communicators.erase(handle);
    return ncclSuccess;
  };
  library.GroupStart = [] {
    ++group.depth;
    return ncclSuccess;
  };
  library.GroupEnd = [] {
    ncclResult_t result = ncclSuccess;
    if (--group.depth == 0) {
      for (auto& [handle, work] : std::exchange(group.calls, {})) {
        result = end_group(handle, work.first, std::move(work.second));
      }
    }
    return result;
  };
}

void fill_operations(NcclLibrary& library) {
  library.AllReduce = [](const void* send, void* receive, std::size_t count, ncclDataType_t type, ncclRedOp_t,
                         ncclComm_t handle, cudaStream_t stream) {
    const auto& self = *handle;
    const std::size_t bytes = count * size_of_type(type);
    Operation operation;
    visit_peers(self, [&](int r) { operation.sends.emplace_back(r, send, bytes); });
    operation.receive = [=, &self](const Take& take) {
      receive_sum(take, self, static_cast<const std::byte*>(send), static_cast<std::byte*>(receive), bytes,
                  type);
    };
    return add("ncclAllReduce", handle, stream, std::move(operation));
  };
  library.ReduceScatter = [](const void* send, void* receive, std::size_t count, ncclDataType_t type,
                             ncclRedOp_t, ncclComm_t handle, cudaStream_t stream) {
    const auto& self = *handle;
    const std::size_t bytes = count * size_of_type(type);
    const auto* parts = static_cast<const std::byte*>(send);
    const auto part = [=](int r) { return parts + static_cast<std::size_t>(r) * bytes; };
    Operation operation;
    visit_peers(self, [&](int r) { operation.sends.emplace_back(r, part(r), bytes); });
    operation.receive = [=, &self](const Take& take) {
      receive_sum(take, self, part(self.rank), static_cast<std::byte*>(receive), bytes, type);
    };
    return add("ncclReduceScatter", handle, stream, std::move(operation));
  };
  library.AllGather = [](const void* send, void* receive, std::size_t count, ncclDataType_t type,
                         ncclComm_t handle, cudaStream_t stream) {
    const auto& self = *handle;
    const std::size_t bytes = count * size_of_type(type);
    Operation operation;
    visit_peers(self, [&](int r) { operation.sends.emplace_back(r, send, bytes); });
    operation.receive = [=, &self](const Take& take) {
      auto* parts = static_cast<std::byte*>(receive);
      std::memmove(parts + static_cast<std::size_t>(self.rank) * bytes, send, bytes);
      visit_peers(self, [&](int r) {
        std::memcpy(parts + static_cast<std::size_t>(r) * bytes, take(r).data(), bytes);
      });
    };
    return add("ncclAllGather", handle, stream, std::move(operation));
  };
  library.Broadcast = [](const void* send, void* receive, std::size_t count, ncclDataType_t type, int root,
                         ncclComm_t handle, cudaStream_t stream) {
    const auto& self = *handle;
    const std::size_t bytes = count * size_of_type(type);
    Operation operation;
    if (self.rank == root) {
      visit_peers(self, [&](int r) { operation.sends.emplace_back(r, send, bytes); });
    } else {
      operation.receive = [=](const Take& take) { std::memcpy(receive, take(root).data(), bytes); };
    }
    return add("ncclBroadcast", handle, stream, std::move(operation));
  };
  library.Send = [](const void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t handle,
                    cudaStream_t stream) {
    Operation operation;
    operation.sends.emplace_back(peer, data, count * size_of_type(type));
    return add("ncclSend", handle, stream, std::move(operation));
  };
  library.Recv = [](void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t handle,
                    cudaStream_t stream) {
    Operation operation;
    operation.receive = [=](const Take& take) {
      const Bytes bytes = take(peer);
      if (bytes.size() != count * size_of_type(type)) {
        misuse("ncclRecv of another size than was sent");
        return;
      }
      std::memcpy(data, bytes.data(), bytes.size());
    };
    return add("ncclRecv", handle, stream, std::move(operation));
  };
}

void fill_windows(NcclLibrary& library) {
  library.MemAlloc = [](void** data, std::size_t bytes) {
    at_once([&](cudaStream_t stream) { cudaMallocAsync(data, bytes, stream); });
    const std::lock_guard lock(state().mutex);
    state().blocks.insert(*data);
    return ncclSuccess;
  };
  library.MemFree = [](void* data) {
    at_once([&](cudaStream_t stream) { cudaFreeAsync(data, stream); });
    const std::lock_guard lock(state().mutex);
    if (state().blocks.erase(data) == 0) {
      state().misuses.emplace_back("ncclMemFree of what is not there");
    }
    return ncclSuccess;
  };
  library.CommWindowRegister = [](ncclComm_t handle, void* data, std::size_t, ncclWindow_t* window, int) {
    const Call call(handle, "ncclCommWindowRegister");
    const std::lock_guard lock(state().mutex);
    *window = static_cast<ncclWindow_t>(data);
    if (!call || !state().blocks.contains(data) || !state().windows.insert(data).second) {
      state().misuses.emplace_back("ncclCommWindowRegister of memory that is not NCCL's");
    }
    return ncclSuccess;
  };
  library.CommWindowDeregister = [](ncclComm_t handle, ncclWindow_t window) {
    const Call call(handle, "ncclCommWindowDeregister");
    const std::lock_guard lock(state().mutex);
    if (!call || state().windows.erase(window) == 0) {
      state().misuses.emplace_back("ncclCommWindowDeregister of what is not there");
    }
    return ncclSuccess;
  };
}

}  // namespace

void install(const Plan& plan) {
  static const NcclLibrary library = [] {
    NcclLibrary made;
    fill_management(made);
    fill_operations(made);
    fill_windows(made);
    return made;
  }();
  replace_nccl_library(&library);
  const std::lock_guard lock(state().mutex);
  state().plan = plan;
  state().misuses.clear();
}

std::vector<std::string> misuses() {
  const std::lock_guard lock(state().mutex);
  return state().misuses;
}

Held held() {
  const std::lock_guard lock(state().mutex);
  return {.communicators = static_cast<int>(state().communicators.size()),
          .windows = static_cast<int>(state().windows.size()),
          .blocks = static_cast<int>(state().blocks.size())};
}

}  // namespace millrace::fake_nccl
