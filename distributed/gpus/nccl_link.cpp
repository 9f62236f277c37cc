#include "distributed/gpus/nccl_link.h"

#include <utility>

#include "base/error.h"

namespace millrace {
namespace {

/// How often the watchdog looks.
constexpr std::chrono::milliseconds kPeriod{20};
/// How often somebody who waits looks before he sleeps in between.
constexpr int kLooksAwake = 200;

void relax(int looks) {
  if (looks < kLooksAwake) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

}  // namespace

NcclLink::NcclLink(const NcclLibrary& nccl, int rank, Device device, std::shared_ptr<GroupBoard> board,
                   std::chrono::duration<double> timeout)
    : nccl_(nccl),
      rank_(rank),
      device_(device),
      board_(std::move(board)),
      timeout_(std::chrono::duration_cast<Clock::duration>(timeout)) {}

NcclLink::~NcclLink() {
  std::string why;
  {
    std::unique_lock lock(watch_mutex_);
    while (board_->reason().empty() && (why = stuck()).empty() && !watched_.empty()) {
      lock.unlock();
      relax(kLooksAwake);
      lock.lock();
    }
    stopped_ = true;
  }
  changed_.notify_all();
  if (watchdog_.joinable()) {
    watchdog_.join();
  }
  if (why = why.empty() ? board_->reason() : why; !why.empty()) {
    give_up(why);
  }
  board_->reach(rank_, {.number = number_, .operation = Operation::leave});
  if (communicator_ != nullptr) {
    for (const Window& window : windows_) {
      if (window.handle != nullptr) {
        nccl_.CommWindowDeregister(communicator_, window.handle);
      }
    }
    nccl_.CommDestroy(communicator_);
  }
}

void NcclLink::connect(const ncclUniqueId& id) {
  const cuda::DeviceGuard device(device_.index);
  operation_ = Operation::join;
  board_->reach(rank_, {.number = number_, .operation = operation_});
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const std::lock_guard lock(mutex_);
  answer(nccl_.CommInitRankConfig(&communicator_, size(), id, rank_, &config));
}

void NcclLink::joined() {
  settle();
  watchdog_ = std::thread([this] { run_watchdog(); });
}

void NcclLink::begin(Operation operation) {
  operation_ = operation;
  if (const std::string news = board_->bad_news(number_ + 1); !news.empty()) {
    give_up(news);
    throw_ended();
  }
  board_->reach(rank_, {.number = ++number_, .operation = operation});
}

void NcclLink::watch(const Stream& stream) {
  Event event;
  event.record(stream);
  const std::lock_guard lock(watch_mutex_);
  if (watched_.empty()) {
    since_ = Clock::now();
  }
  watched_.push_back({number_, operation_, std::move(event)});
}

void NcclLink::wait(const Event& event) {
  for (int looks = 0; !event.is_done(); ++looks) {
    if (looks >= kLooksAwake) {
      throw_on_trouble();
    }
    relax(looks);
  }
  throw_on_trouble();
}

Tensor NcclLink::allocate(std::int64_t count, DType dtype) {
  const TensorOptions options{.dtype = dtype, .device = device_};
  if (nccl_.CommWindowRegister == nullptr) {
    return empty({count}, options);
  }
  begin(Operation::allocate);
  const cuda::DeviceGuard device(device_.index);
  constexpr std::size_t kUnit = NCCL_WIN_REQUIRED_ALIGNMENT;
  const std::size_t bytes = (static_cast<std::size_t>(count) * size_of(dtype) / kUnit + 1) * kUnit;
  void* data = nullptr;
  if (const ncclResult_t result = nccl_.MemAlloc(&data, bytes); result != ncclSuccess) {
    throw MachineError("nccl: {} bytes for gradients on {}: {}", bytes, device_.to_string(),
                       nccl_.GetErrorString(result));
  }
  const Tensor tensor = from_blob(data, {count}, options, [&nccl = nccl_, data, device = device_] {
    cudaSetDevice(device.index);
    cudaDeviceSynchronize();  // unlike memory of the pool, it goes at once
    nccl.MemFree(data);
  });
  Window& window = windows_.emplace_back(Window{nullptr, tensor.storage()});
  call([&](const NcclLibrary& nccl, ncclComm_t communicator) {
    return nccl.CommWindowRegister(communicator, data, bytes, &window.handle, NCCL_WIN_COLL_SYMMETRIC);
  });
  return tensor;
}

void NcclLink::answer(ncclResult_t result) {
  if (error_ == ncclSuccess && result != ncclInProgress) {
    error_ = result;
  }
}

/// What rank `rank_`, in operation `number`, has to know.
NcclLink::Look NcclLink::look(std::uint64_t number) {
  if (std::string news = board_->bad_news(number); !news.empty()) {
    return {.trouble = std::move(news)};
  }
  const std::lock_guard lock(mutex_);
  ncclResult_t state = ncclSuccess;
  if (communicator_ != nullptr && error_ == ncclSuccess) {
    answer(nccl_.CommGetAsyncError(communicator_, &state));
    answer(state);
  }
  if (error_ == ncclSuccess) {
    return {.busy = state == ncclInProgress};
  }
  const char* detail = nccl_.GetLastError(communicator_);
  return {.trouble = fmt::format("rank {}: NCCL reports {}{}{}; {}", rank_, nccl_.GetErrorString(error_),
                                 detail == nullptr || *detail == '\0' ? "" : ": ",
                                 detail == nullptr ? "" : detail, board_->describe())};
}

/// Waits until NCCL has done on the host what it was asked for; only then the stream holds it.
void NcclLink::settle() {
  const Clock::time_point deadline = Clock::now() + timeout_;
  for (int looks = 0; throw_on_trouble(); ++looks) {
    if (Clock::now() > deadline) {
      give_up(late(number_, operation_));
      throw_ended();
    }
    relax(looks);
  }
}

/// Returns whether NCCL is busy.
bool NcclLink::throw_on_trouble() {
  const Look now = look(number_);
  if (!now.trouble.empty()) {
    give_up(now.trouble);
    throw_ended();
  }
  return now.busy;
}

/// Forgets what is done; says what is wrong with the oldest operation that is not. Under watch_mutex_.
std::string NcclLink::stuck() {
  try {
    while (!watched_.empty() && watched_.front().event.is_done()) {
      watched_.pop_front();
      since_ = Clock::now();
    }
  } catch (const MachineError& error) {
    return fmt::format("rank {}: {}", rank_, error.what());
  }
  const bool over = !watched_.empty() && Clock::now() - since_ > timeout_;
  return over ? late(watched_.front().number, watched_.front().operation) : "";
}

std::string NcclLink::late(std::uint64_t number, Operation operation) const {
  return fmt::format("timed out after {:.3g} s in {} (operation {}): {}",
                     std::chrono::duration<double>(timeout_).count(), name_of(operation), number,
                     board_->describe());
}

void NcclLink::give_up(const std::string& reason) {
  board_->end_unless_told(reason);
  const std::lock_guard lock(mutex_);
  if (communicator_ != nullptr) {
    nccl_.CommAbort(std::exchange(communicator_, nullptr));
  }
}

void NcclLink::throw_ended() { throw CommunicatorError("{}: {}", name_of(operation_), board_->reason()); }

void NcclLink::run_watchdog() {
  std::unique_lock lock(watch_mutex_);
  while (!stopped_) {
    changed_.wait_for(lock, kPeriod);
    std::string why = stuck();
    const std::uint64_t number = watched_.empty() ? 0 : watched_.back().number;
    lock.unlock();
    if (why = why.empty() ? look(number).trouble : why; !why.empty()) {
      give_up(why);
      return;
    }
    lock.lock();
  }
}

}  // namespace millrace
