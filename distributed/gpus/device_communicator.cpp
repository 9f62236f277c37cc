#include "distributed/gpus/device_communicator.h"

#include <algorithm>
#include <exception>

#include "base/error.h"
#include "distributed/threads/group.h"
#include "tensor/cuda/tree_sum.h"

namespace millrace {
namespace {

/// Points in one rank's stream: what it brings to an operation is there; its part of the operation is done.
struct Marks {
  Event ready, done;
};

struct DeviceGroup {
  DeviceGroup(int size, std::chrono::duration<double> timeout)
      : threads(size, timeout), marks(static_cast<std::size_t>(size)) {}
  ThreadGroup threads;
  std::vector<Marks> marks;  // each written by its rank, and read by the others between the gates
};

class DeviceCommunicator final : public Communicator {
 public:
  DeviceCommunicator(std::shared_ptr<DeviceGroup> group, int rank, Device device)
      : group_(std::move(group)), rank_(rank), device_(device) {}
  ~DeviceCommunicator() override {
    if (size() > 1) {
      threads().end(fmt::format("rank {} has left the group", rank_));
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return threads().size(); }

  void all_reduce(Tensor& tensor, const Stream& asked) override {
    check_addends(tensor, kCuda, Operation::all_reduce);
    if (size() == 1) {
      return;
    }
    meet(Operation::all_reduce, tensor, -1, asked, [&](const Stream& stream) {
      if (rank_ == 0) {
        const auto all = places(0);
        const std::vector<const std::byte*> addends(all.begin(), all.end());
        cuda::tree_sum(addends, all, tensor.numel(), tensor.dtype(), stream);
      }
    });
    tensor.storage()->bump_version();
  }

  void reduce_scatter(Tensor& input, Tensor& output, const Stream& asked) override {
    check_addends(input, kCuda, Operation::reduce_scatter);
    check_parts(input, output, size(), kCuda, Operation::reduce_scatter);
    check_here(output, Operation::reduce_scatter);
    meet(Operation::reduce_scatter, input, -1, asked, [&](const Stream& stream) {
      const auto parts = places(rank_ * static_cast<std::int64_t>(output.bytes()));
      const std::vector<const std::byte*> addends(parts.begin(), parts.end());
      cuda::tree_sum(addends, std::vector{output.raw()}, output.numel(), output.dtype(), stream);
    });
    output.storage()->bump_version();
  }

  void all_gather(const Tensor& input, Tensor& output, const Stream& asked) override {
    check_dense(input, kCuda, Operation::all_gather);
    check_parts(output, input, size(), kCuda, Operation::all_gather);
    check_here(output, Operation::all_gather);
    meet(Operation::all_gather, input, -1, asked, [&](const Stream&) {
      const std::int64_t bytes = static_cast<std::int64_t>(input.bytes());
      for (int r = 0; r < size(); ++r) {
        copy(post(r).data, output.raw() + r * bytes, input.numel(), input.dtype());
      }
    });
    output.storage()->bump_version();
  }

  void broadcast(Tensor& tensor, int root, const Stream& asked) override {
    check_dense(tensor, kCuda, Operation::broadcast);
    check_root(root, size());
    meet(Operation::broadcast, tensor, root, asked, [&](const Stream&) {
      if (rank_ != root) {
        copy(post(root).data, tensor.raw(), tensor.numel(), tensor.dtype());
      }
    });
    if (rank_ != root) {
      tensor.storage()->bump_version();
    }
  }

  void barrier() override {
    if (size() > 1) {
      threads().enter(rank_, {.operation = Operation::barrier});
    }
  }

  void abort(const std::string& reason) override {
    threads().end(fmt::format("rank {} aborted: {}", rank_, reason));
  }

 private:
  static constexpr Device::Kind kCuda = Device::Kind::cuda;

  ThreadGroup& threads() const { return group_->threads; }
  Marks& marks(int r) const { return group_->marks[static_cast<std::size_t>(r)]; }
  const Post& post(int r) const { return threads().post(rank_, r); }

  /// Where all ranks' tensors lie, `offset` bytes on.
  std::vector<std::byte*> places(std::int64_t offset) const {
    std::vector<std::byte*> places;
    for (int r = 0; r < size(); ++r) {
      places.push_back(post(r).data + offset);
    }
    return places;
  }

  void copy(std::byte* from, std::byte* to, std::int64_t count, DType dtype) const {
    const TensorOptions options{.dtype = dtype, .device = device_};
    from_blob(to, {count}, options).copy_(from_blob(from, {count}, options));
  }

  void check_here(const Tensor& tensor, Operation operation) const {
    if (tensor.device() != device_) {
      throw InputError("{}: got a tensor on {}, expected one on {}, where this group is", name_of(operation),
                       tensor.device().to_string(), device_.to_string());
    }
  }

  /// Enqueues `work(stream)` behind what all ranks have enqueued so far; what this rank enqueues next comes
  /// behind the work of all.
  template <typename Work>
  void meet(Operation operation, const Tensor& tensor, int root, const Stream& asked, Work&& work) {
    check_here(tensor, operation);
    const Stream stream = asked.device().is_cuda() ? asked : current_stream(device_);
    marks(rank_).ready.record(stream);
    threads().enter(rank_, {.operation = operation,
                            .dtype = tensor.dtype(),
                            .root = root,
                            .shape = tensor.shape(),
                            .strides = tensor.strides(),
                            .data = tensor.raw()});
    std::exception_ptr failure;
    try {
      wait_for_all(stream, &Marks::ready);
      const StreamGuard guard(stream);
      work(stream);
      marks(rank_).done.record(stream);
    } catch (const std::exception& error) {
      failure = std::current_exception();
      threads().end(fmt::format("rank {} failed: {}", rank_, error.what()));
    }
    threads().leave();
    wait_for_all(stream, &Marks::done);
    if (failure) {
      std::rethrow_exception(failure);
    }
    threads().throw_if_ended(operation);
  }

  void wait_for_all(const Stream& stream, Event Marks::*mark) const {
    for (int r = 0; r < size(); ++r) {
      if (r != rank_) {
        (marks(r).*mark).make_wait(stream);
      }
    }
  }

  std::shared_ptr<DeviceGroup> group_;
  int rank_;
  Device device_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_device_group(int size, Device device,
                                                             std::chrono::duration<double> timeout) {
  if (size < 1 || size > ThreadGroup::kMaxRanks || !device.is_cuda()) {
    throw InputError("make_device_group: got {} ranks on {}, expected 1 to {} on a GPU", size,
                     device.to_string(), ThreadGroup::kMaxRanks);
  }
  const auto group = std::make_shared<DeviceGroup>(size, timeout);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int r = 0; r < size; ++r) {
    ranks.push_back(std::make_unique<DeviceCommunicator>(group, r, device));
  }
  return ranks;
}

}  // namespace millrace
