#pragma once

#include <memory>
#include <span>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/operation.h"
#include "distributed/rendezvous/rendezvous.h"

namespace millrace {

/// Bytes to or from one rank.
struct Message {
  int rank;
  void* data;
  std::size_t bytes;
};

/// A group whose ranks send each other messages; the kinds differ in how these travel. CPU tensors only.
///
/// Sums on the tree: every rank gets its part of all ranks' tensors, sums it, and sends the sum to all, which
/// moves as many bytes as a ring does. What is small goes whole to all, which saves a turn.
class MessageCommunicator : public Communicator {
 public:
  explicit MessageCommunicator(std::shared_ptr<Rendezvous> rendezvous, SumOrder sum_order)
      : rendezvous_(std::move(rendezvous)), sum_order_(sum_order) {}

  int rank() const override { return rendezvous_->place().rank; }
  int size() const override { return rendezvous_->place().size; }
  void all_reduce(Tensor& tensor, const Stream& stream = {}) override;
  void reduce_scatter(Tensor& input, Tensor& output, const Stream& stream = {}) override;
  void all_gather(const Tensor& input, Tensor& output, const Stream& stream = {}) override;
  void broadcast(Tensor& tensor, int root, const Stream& stream = {}) override;
  void barrier() override;
  void abort(const std::string& reason) override { rendezvous_->fail(reason); }

 protected:
  /// Sends and receives all of them, and returns when all are done. At most one message between two ranks in
  /// each direction. What it throws becomes a CommunicatorError that names who failed.
  virtual void transfer(std::span<const Message> sends, std::span<const Message> receives) = 0;
  /// Sums in the engine's own order, in place.
  virtual void sum_by_engine(Tensor& tensor) = 0;
  Rendezvous& rendezvous() const { return *rendezvous_; }

 private:
  /// Runs `body` as an operation of all ranks.
  template <typename Body>
  void together(Operation operation, Body&& body);
  template <typename T>
  void sum_on_tree(T* data, std::int64_t count);
  template <typename T>
  void sum_small(T* data, std::int64_t count);
  /// Rank q's tensor comes from `parts[q]`; its sum goes to `to`.
  template <typename T>
  void sum_parts(std::vector<const T*> parts, std::int64_t count, T* to);
  std::byte* scratch(std::size_t bytes);

  std::shared_ptr<Rendezvous> rendezvous_;
  SumOrder sum_order_;
  std::vector<std::byte> scratch_;
};

}  // namespace millrace
