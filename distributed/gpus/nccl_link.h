#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "distributed/gpus/nccl_library.h"
#include "distributed/group_board.h"
#include "tensor/cuda/runtime/runtime.h"
#include "tensor/tensor.h"

namespace millrace {

/// One rank's NCCL communicator, which never blocks, and the thread that watches it.
///
/// The watchdog looks at NCCL's asynchronous errors, at the board and at how long the oldest operation on the
/// GPU has taken. Whoever sees trouble first, the owner or the watchdog, puts it on the board and aborts this
/// rank's communicator; that also ends kernels that wait on the GPU, and so whatever the owner waits for.
/// NCCL's abort wants nobody else inside NCCL: all calls are made under one lock, and none of them blocks.
class NcclLink {
 public:
  using Clock = std::chrono::steady_clock;

  NcclLink(const NcclLibrary& nccl, int rank, Device device, std::shared_ptr<GroupBoard> board,
           std::chrono::duration<double> timeout);
  /// Lets the operations that are on the way end, within the timeout.
  ~NcclLink();
  NcclLink(const NcclLink&) = delete;
  NcclLink& operator=(const NcclLink&) = delete;

  /// Enters the group. Members of one thread do it within one group of NCCL's, then each calls `joined`.
  void connect(const ncclUniqueId& id);
  /// Waits until all members are there. @throws CommunicatorError.
  void joined();

  /// Begins the next operation. @throws CommunicatorError when the group has ended.
  void begin(Operation operation);
  /// Calls `enqueue(library, communicator)` as one group of NCCL's, and waits until its work lies in the
  /// stream.
  /// @throws CommunicatorError.
  template <typename Enqueue>
  void call(Enqueue&& enqueue) {
    const cuda::DeviceGuard device(device_.index);
    {
      const std::lock_guard lock(mutex_);
      if (communicator_ != nullptr) {  // else `settle` throws
        answer(nccl_.GroupStart());
        answer(enqueue(nccl_, communicator_));
        answer(nccl_.GroupEnd());
      }
    }
    settle();
  }
  /// From here on the watchdog waits for what `stream` holds.
  void watch(const Stream& stream);
  /// Waits until `event` is done. @throws CommunicatorError when an operation failed, before or meanwhile.
  void wait(const Event& event);
  /// NCCL's memory, registered as a window where the library has them; all members call it alike.
  Tensor allocate(std::int64_t count, DType dtype);
  void abort(const std::string& reason) { board_->end(reason); }

  /// Keeps the first error among NCCL's answers, for `joined` and `call` to throw.
  void answer(ncclResult_t result);
  int rank() const { return rank_; }
  int size() const { return board_->size(); }
  Device device() const { return device_; }

 private:
  struct Watched {
    std::uint64_t number;
    Operation operation;
    Event event;
  };
  struct Window {
    ncclWindow_t handle;
    std::shared_ptr<Storage> memory;
  };
  struct Look {
    std::string trouble;
    bool busy = false;
  };

  Look look(std::uint64_t number);
  void settle();
  std::string stuck();
  std::string late(std::uint64_t number, Operation operation) const;
  void give_up(const std::string& reason);
  [[noreturn]] void throw_ended();
  bool throw_on_trouble();
  void run_watchdog();

  const NcclLibrary& nccl_;
  const int rank_;
  const Device device_;
  const std::shared_ptr<GroupBoard> board_;
  const Clock::duration timeout_;
  std::uint64_t number_ = 0;  // of the owner's last operation
  Operation operation_ = Operation::none;

  std::mutex mutex_;                   // held by whoever is inside NCCL
  ncclComm_t communicator_ = nullptr;  // null before `connect` and after the abort
  ncclResult_t error_ = ncclSuccess;   // the first that NCCL answered
  std::deque<Window> windows_;         // their memory stays until they are gone

  std::mutex watch_mutex_;
  std::condition_variable changed_;
  std::deque<Watched> watched_;  // on the GPU, oldest first
  Clock::time_point since_;      // when the oldest came first
  bool stopped_ = false;
  std::thread watchdog_;
};

}  // namespace millrace
