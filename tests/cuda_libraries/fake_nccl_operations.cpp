#include <cstring>
#include <thread>

#include "fake_nccl_state.h"
#include "internal.h"

namespace millrace::fake_nccl {
namespace {

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

/// Each rank r gets `part(r)` of all ranks, added up.
template <typename Part>
Operation sum_of(const ncclComm& self, const Part& part, void* receive, std::size_t bytes,
                 ncclDataType_t type) {
  Operation operation;
  visit_peers(self, [&](int r) { operation.sends.emplace_back(r, part(r), bytes); });
  operation.receive = [=, &self](const Take& take) {
    receive_sum(take, self, part(self.rank), static_cast<std::byte*>(receive), bytes, type);
  };
  return operation;
}

ncclResult_t all_reduce(const void* send, void* receive, std::size_t count, ncclDataType_t type, ncclRedOp_t,
                        ncclComm_t handle, cudaStream_t stream) {
  const auto whole = [=](int) { return static_cast<const std::byte*>(send); };
  return add("ncclAllReduce", handle, stream,
             sum_of(*handle, whole, receive, count * size_of_type(type), type));
}

ncclResult_t reduce_scatter(const void* send, void* receive, std::size_t count, ncclDataType_t type,
                            ncclRedOp_t, ncclComm_t handle, cudaStream_t stream) {
  const std::size_t bytes = count * size_of_type(type);
  const auto part = [=](int r) {
    return static_cast<const std::byte*>(send) + static_cast<std::size_t>(r) * bytes;
  };
  return add("ncclReduceScatter", handle, stream, sum_of(*handle, part, receive, bytes, type));
}

ncclResult_t all_gather(const void* send, void* receive, std::size_t count, ncclDataType_t type,
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
}

ncclResult_t broadcast(const void* send, void* receive, std::size_t count, ncclDataType_t type, int root,
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
}

ncclResult_t send_to(const void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t handle,
                     cudaStream_t stream) {
  Operation operation;
  operation.sends.emplace_back(peer, data, count * size_of_type(type));
  return add("ncclSend", handle, stream, std::move(operation));
}

ncclResult_t receive_from(void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t handle,
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
}

}  // namespace

void fill_operations(NcclLibrary& library) {
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
  library.AllReduce = all_reduce;
  library.ReduceScatter = reduce_scatter;
  library.AllGather = all_gather;
  library.Broadcast = broadcast;
  library.Send = send_to;
  library.Recv = receive_from;
}

}  // namespace millrace::fake_nccl
