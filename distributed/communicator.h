#pragma once

#include <cstdint>
#include <string>

#include "tensor/device.h"
#include "tensor/tensor.h"

namespace millrace {

/// Whose order sums follow: the fixed tree's, or that of the engine which carries the data (NCCL on GPUs).
enum class SumOrder : std::uint8_t { tree, engine };

/// How the members of a group exchange tensors. All members call the same operations in the same order.
///
/// Every operation is enqueued on `stream` (on the CPU: is done when it returns). In a group of one, nothing
/// happens. Sums follow a fixed binary tree over the ranks, ((0 + 1) + (2 + 3)) + ..., so they never depend
/// on timing, unless the group was made with SumOrder::engine.
/// @throws CommunicatorError if a peer failed, aborted or stayed away for the timeout; the message names it.
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Sums `tensor` (dense, f32 or f64) over all ranks, in place.
  virtual void all_reduce(Tensor& tensor, const Stream& stream = {}) = 0;
  /// Rank r gets the r-th of `size()` equal parts of the sum; `input` may be used as scratch.
  virtual void reduce_scatter(Tensor& input, Tensor& output, const Stream& stream = {}) = 0;
  /// Joins equal parts of all ranks, in rank order.
  virtual void all_gather(const Tensor& input, Tensor& output, const Stream& stream = {}) = 0;
  /// Copies `tensor` from `root` to all.
  virtual void broadcast(Tensor& tensor, int root, const Stream& stream = {}) = 0;
  virtual void barrier() = 0;
  /// Blocks until `event` is done. Whoever waits for a GPU behind operations of this group does it here,
  /// where a peer's failure ends the wait, and shows.
  virtual void wait(const Event& event) { event.await(); }
  /// One dimension of memory, not initialized, that this group sums fastest. All members ask alike.
  virtual Tensor allocate(std::int64_t count, TensorOptions options) { return empty({count}, options); }
  /// Ends every operation in progress and to come, on all ranks, with an error that carries `reason`.
  virtual void abort(const std::string& reason) = 0;
};

}  // namespace millrace
