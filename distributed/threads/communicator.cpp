#include "distributed/threads/communicator.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "distributed/threads/group.h"
#include "distributed/tree_sum.h"

namespace millrace {
namespace {

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<ThreadGroup> group, int rank)
      : group_(std::move(group)),
        rank_(rank),
        scratch_(kBlock * std::bit_width(static_cast<std::size_t>(size()))) {}
  ~ThreadCommunicator() override {
    if (size() > 1) {
      group_->end(fmt::format("rank {} has left the group", rank_));
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }

  void all_reduce(Tensor& tensor, const Stream& /*stream*/) override {
    check_addends(tensor, Device::Kind::cpu, Operation::all_reduce);
    if (size() == 1) {
      return;
    }
    enter(Operation::all_reduce, tensor);
    const auto [begin, end] = part_of(tensor.numel(), rank_, size());
    visit_sums(tensor.dtype(), begin, end, [&](const auto* sum, std::int64_t at, std::int64_t count) {
      for (int r = 0; r < size(); ++r) {
        copy(sum, address(r, at, sizeof(*sum)), count);
      }
    });
    group_->leave();
    tensor.storage()->bump_version();
  }

  void reduce_scatter(Tensor& input, Tensor& output, const Stream& /*stream*/) override {
    check_addends(input, Device::Kind::cpu, Operation::reduce_scatter);
    check_parts(input, output, size(), Device::Kind::cpu, Operation::reduce_scatter);
    if (size() == 1) {
      output.copy_(input.view(output.shape()));
      return;
    }
    enter(Operation::reduce_scatter, input);
    const std::int64_t begin = rank_ * output.numel();
    visit_sums(input.dtype(), begin, begin + output.numel(),
               [&](const auto* sum, std::int64_t at, std::int64_t count) {
                 copy(sum, output.raw() + (at - begin) * static_cast<std::int64_t>(sizeof(*sum)), count);
               });
    group_->leave();
    output.storage()->bump_version();
  }

  void all_gather(const Tensor& input, Tensor& output, const Stream& /*stream*/) override {
    check_dense(input, Device::Kind::cpu, Operation::all_gather);
    check_parts(output, input, size(), Device::Kind::cpu, Operation::all_gather);
    const auto bytes = input.bytes();
    if (size() > 1) {
      enter(Operation::all_gather, input);
    }
    for (int r = 0; r < size() && bytes > 0; ++r) {
      const std::byte* part = size() > 1 ? group_->post(rank_, r).data : input.raw();
      std::memmove(output.raw() + static_cast<std::size_t>(r) * bytes, part, bytes);
    }
    if (size() > 1) {
      group_->leave();
    }
    output.storage()->bump_version();
  }

  void broadcast(Tensor& tensor, int root, const Stream& /*stream*/) override {
    check_dense(tensor, Device::Kind::cpu, Operation::broadcast);
    check_root(root, size());
    if (size() == 1) {
      return;
    }
    enter(Operation::broadcast, tensor, root);
    const auto bytes = tensor.bytes();
    if (rank_ != root && bytes > 0) {
      std::memcpy(tensor.raw(), group_->post(rank_, root).data, bytes);
    }
    group_->leave();
    if (rank_ != root) {
      tensor.storage()->bump_version();
    }
  }

  void barrier() override {
    if (size() > 1) {
      group_->enter(rank_, {.operation = Operation::barrier});
    }
  }

  void abort(const std::string& reason) override {
    group_->end(fmt::format("rank {} aborted: {}", rank_, reason));
  }

 private:
  void enter(Operation operation, const Tensor& tensor, int root = -1) {
    group_->enter(rank_, {.operation = operation,
                          .dtype = tensor.dtype(),
                          .root = root,
                          .shape = tensor.shape(),
                          .strides = tensor.strides(),
                          .data = tensor.raw()});
  }

  std::byte* address(int r, std::int64_t element, std::size_t size) const {
    return group_->post(rank_, r).data + element * static_cast<std::int64_t>(size);
  }

  /// Calls `take(sum, at, count)` for the sums of all ranks' elements [begin, end), a block at a time.
  template <typename Take>
  void visit_sums(DType dtype, std::int64_t begin, std::int64_t end, Take&& take) {
    if (dtype == DType::f32) {
      take_sums<float>(begin, end, take);
    } else {
      take_sums<double>(begin, end, take);
    }
  }

  template <typename T, typename Take>
  void take_sums(std::int64_t begin, std::int64_t end, Take& take) {
    const auto ranks = static_cast<std::size_t>(size());
    T* scratch = reinterpret_cast<T*>(scratch_.data());
    std::array<const T*, ThreadGroup::kMaxRanks> blocks;
    for (std::int64_t at = begin; at < end; at += kBlock) {
      const std::int64_t count = std::min(kBlock, end - at);
      for (std::size_t r = 0; r < ranks; ++r) {
        blocks[r] = reinterpret_cast<const T*>(address(static_cast<int>(r), at, sizeof(T)));
      }
      take(sum_block(blocks.data(), ranks, count, scratch), at, count);
    }
  }

  template <typename T>
  static void copy(const T* from, std::byte* to, std::int64_t count) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
  }

  std::shared_ptr<ThreadGroup> group_;
  int rank_;
  std::vector<double> scratch_;  // allocated here, because nothing may throw between the gates
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_thread_group(int size,
                                                             std::chrono::duration<double> timeout) {
  if (size < 1 || size > ThreadGroup::kMaxRanks) {
    throw InputError("make_thread_group: got {} ranks, expected 1 to {}", size, ThreadGroup::kMaxRanks);
  }
  const auto group = std::make_shared<ThreadGroup>(size, timeout);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int r = 0; r < size; ++r) {
    ranks.push_back(std::make_unique<ThreadCommunicator>(group, r));
  }
  return ranks;
}

}  // namespace millrace
