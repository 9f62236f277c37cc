#include "fake_nccl.h"

#include <cstring>

#include "fake_nccl_state.h"
#include "internal.h"

namespace millrace::fake_nccl {

State& state() {
  static State state;
  return state;
}

void misuse(const std::string& what) {
  const std::lock_guard lock(state().mutex);
  state().misuses.push_back(what);
}

Call::Call(ncclComm_t handle, const char* name) {
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

Call::~Call() {
  if (communicator_) {
    communicator_->inside = false;
  }
}

namespace {

/// Runs `work(stream)` on a stream of its own and waits for it.
template <typename Work>
void at_once(Work&& work) {
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  work(stream);
  cudaStreamSynchronize(stream);
  cudaStreamDestroy(stream);
}

/// Joins the group that `id` names, and is in progress until all ranks have.
ncclResult_t join(ncclComm_t* out, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
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
}

/// Puts pending work into its stream, once it has been asked often enough.
ncclResult_t settle(ncclComm_t handle, ncclResult_t* result) {
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
  library.CommInitRankConfig = join;
  library.CommGetAsyncError = settle;
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
