#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "base/parking.h"
#include "distributed/operation.h"

namespace millrace {

/// What one rank brings to an operation; all but the pointers must agree among the ranks.
struct Post {
  Operation operation = Operation::none;
  DType dtype = DType::f32;
  int root = -1;
  Shape shape;
  Strides strides;
  std::byte* data = nullptr;

  bool agrees(const Post& other) const {
    return operation == other.operation && dtype == other.dtype && root == other.root &&
           shape == other.shape && strides == other.strides;
  }
  std::string describe() const;
};

/// The memory that ranks which are threads of one process share.
///
/// An operation has two gates. The first opens when all ranks have posted what they bring: then every rank
/// may touch every rank's tensor. The second opens when all are done with that. `gate_` counts the gates
/// opened, and its top bit says that the group has ended: gates and end are decided in one atomic word, so no
/// rank can leave an operation, and free its tensor, that another rank has begun.
class ThreadGroup {
 public:
  static constexpr int kMaxRanks = 256;

  ThreadGroup(int size, std::chrono::duration<double> timeout);

  int size() const { return static_cast<int>(ranks_.size()); }

  /// Posts what `rank` brings and returns when all ranks have posted the same operation.
  /// @throws CommunicatorError when a rank stays away, posts another operation, or has ended the group.
  void enter(int rank, const Post& post);
  /// Returns when all ranks are done with each other's tensors. They never wait in between, so this wait has
  /// an end.
  void leave();
  /// What rank r posted for the operation that `rank` is in.
  const Post& post(int rank, int r) const;

  /// Ends the group with a reason; the first one counts.
  void end(const std::string& reason);
  void throw_if_ended(Operation operation);

 private:
  static constexpr std::uint64_t kEnded = std::uint64_t{1} << 63;

  struct alignas(64) Rank {
    std::uint64_t operations = 0;           // begun; used by the rank itself
    std::atomic<std::uint64_t> reached{0};  // for the others' messages: operations << 8 | kind
    // Two, because a rank may post its next operation while another still checks this one.
    std::array<Post, 2> posts;
  };

  bool ended() const { return (gate_.load() & kEnded) != 0; }
  bool passed(std::uint64_t gate) const { return (gate_.load() & ~kEnded) >= gate; }
  template <typename Open>
  std::uint64_t arrive(Open&& open);
  void open_unless_ended();
  void check_agreement(std::uint64_t number);
  std::string describe_missing(std::uint64_t number, Operation operation) const;
  [[noreturn]] void throw_ended(Operation operation);

  std::vector<Rank> ranks_;
  Parking::Clock::duration timeout_;
  alignas(64) std::atomic<std::uint64_t> arrivals_{0};
  alignas(64) std::atomic<std::uint64_t> gate_{0};
  Parking parking_;
  std::mutex reason_mutex_;
  std::string reason_;
};

}  // namespace millrace
