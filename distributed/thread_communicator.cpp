#include "distributed/thread_communicator.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <fmt/format.h>
#include <mutex>
#include <string_view>

#include "distributed/parking.h"
#include "distributed/tree_sum.h"

namespace millrace {
namespace {

enum class Operation : std::uint8_t { none, all_reduce, reduce_scatter, all_gather, broadcast, barrier };

constexpr std::string_view name_of(Operation operation) {
  constexpr std::array<std::string_view, 6> kNames{"nothing",    "all_reduce", "reduce_scatter",
                                                   "all_gather", "broadcast",  "barrier"};
  return kNames[static_cast<std::size_t>(operation)];
}

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
  std::string describe() const {
    if (operation == Operation::barrier) {
      return std::string(name_of(operation));
    }
    const std::string tensor = fmt::format("{} of {} {}", name_of(operation), dtype, shape);
    return root < 0 ? tensor : fmt::format("{} from rank {}", tensor, root);
  }
};

/// The memory that the ranks of a group share.
///
/// An operation has two gates. The first opens when all ranks have posted what they bring: then every rank
/// may touch every rank's tensor. The second opens when all are done with that. `gate_` counts the gates
/// opened, and its top bit says that the group has ended: gates and end are decided in one atomic word, so no
/// rank can leave an operation, and free its tensor, that another rank has begun.
class ThreadGroup {
 public:
  ThreadGroup(int size, std::chrono::duration<double> timeout)
      : ranks_(static_cast<std::size_t>(size)),
        timeout_(std::chrono::duration_cast<Parking::Clock::duration>(timeout)) {}

  int size() const { return static_cast<int>(ranks_.size()); }

  /// Posts what `rank` brings and returns when all ranks have posted the same operation.
  void enter(int rank, const Post& post) {
    // After the end nothing is posted: a slower rank may still be reading what was.
    if (ended()) {
      throw_ended(post.operation);
    }
    Rank& self = ranks_[static_cast<std::size_t>(rank)];
    const std::uint64_t number = ++self.operations;
    self.reached.store(number << 8 | static_cast<std::uint64_t>(post.operation));
    self.posts[number % 2] = post;
    const std::uint64_t gate = arrive([&] { open_unless_ended(); });
    const auto decided = [&] { return passed(gate) || ended(); };
    if (!parking_.wait(Parking::Clock::now() + timeout_, decided)) {
      end(describe_missing(number, post.operation));
    }
    if (!passed(gate)) {
      throw_ended(post.operation);
    }
    check_agreement(number);
  }

  /// Returns when all ranks are done with each other's tensors. They only compute here, so this wait has an
  /// end.
  void leave() {
    const std::uint64_t gate = arrive([&] { gate_.fetch_add(1); });
    parking_.wait([&] { return passed(gate); });
  }

  /// What rank r posted for the operation that `rank` is in.
  const Post& post(int rank, int r) const {
    return ranks_[static_cast<std::size_t>(r)].posts[ranks_[static_cast<std::size_t>(rank)].operations % 2];
  }

  /// Ends the group with a reason; the first one counts.
  void end(const std::string& reason) {
    {
      const std::lock_guard lock(reason_mutex_);
      if (reason_.empty()) {
        reason_ = reason;
      }
    }
    gate_.fetch_or(kEnded);
    parking_.wake();
  }

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

  /// Counts this rank in and returns the number of the gate it stands at; the last to come opens it.
  template <typename Open>
  std::uint64_t arrive(Open&& open) {
    const std::uint64_t size = ranks_.size();
    const std::uint64_t before = arrivals_.fetch_add(1);
    const std::uint64_t gate = before / size + 1;
    if (before + 1 == gate * size) {
      open();
      parking_.wake();
    }
    return gate;
  }

  void open_unless_ended() {
    std::uint64_t now = gate_.load();
    while ((now & kEnded) == 0 && !gate_.compare_exchange_weak(now, now + 1)) {
    }
  }

  void check_agreement(std::uint64_t number) {
    const Post& first = ranks_.front().posts[number % 2];
    for (std::size_t r = 1; r < ranks_.size(); ++r) {
      const Post& other = ranks_[r].posts[number % 2];
      if (other.agrees(first)) {
        continue;
      }
      end(fmt::format(
          "rank 0 called {}, rank {} called {}; all ranks must call the same operations with the same "
          "types and shapes in the same order",
          first.describe(), r, other.describe()));
      throw_ended(first.operation);
    }
  }

  std::string describe_missing(std::uint64_t number, Operation operation) const {
    std::string missing;
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      const std::uint64_t reached = ranks_[r].reached.load();
      if (reached >> 8 >= number) {
        continue;
      }
      const auto last = static_cast<Operation>(reached & 0xff);
      missing += fmt::format("{}rank {} stayed away; it last reached {}{}", missing.empty() ? "" : ", ", r,
                             name_of(last),
                             last == Operation::none ? "" : fmt::format(" (operation {})", reached >> 8));
    }
    return fmt::format("timed out after {:.3g} s in {} (operation {}): {}",
                       std::chrono::duration<double>(timeout_).count(), name_of(operation), number, missing);
  }

  [[noreturn]] void throw_ended(Operation operation) {
    const std::lock_guard lock(reason_mutex_);
    throw CommunicatorError("{}: {}", name_of(operation), reason_);
  }

  std::vector<Rank> ranks_;
  Parking::Clock::duration timeout_;
  alignas(64) std::atomic<std::uint64_t> arrivals_{0};
  alignas(64) std::atomic<std::uint64_t> gate_{0};
  Parking parking_;
  std::mutex reason_mutex_;
  std::string reason_;
};

/// Elements summed at a time: all ranks' pieces and the partial sums of the tree stay in the first-level
/// cache.
constexpr std::int64_t kBlock = 1024;
constexpr int kMaxRanks = 256;

/// Sums the same block of ranks [low, low + addends) on the tree. Returns where the sum is: the block itself
/// for one rank, else in `scratch`, which has kBlock elements for each level of the tree.
template <typename T>
const T* sum_block(const T* const* blocks, std::size_t addends, std::int64_t count, T* scratch) {
  if (addends == 1) {
    return blocks[0];
  }
  const std::size_t half = tree_split(addends);
  const T* left = sum_block(blocks, half, count, scratch);
  const T* right = sum_block(blocks + half, addends - half, count, scratch + kBlock);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    scratch[i] = left[i] + right[i];
  }
  return scratch;
}

/// Elements [begin, end) of `count` that rank r of n sums; cut at cache lines.
std::pair<std::int64_t, std::int64_t> part_of(std::int64_t count, int r, int n) {
  constexpr std::int64_t kLine = 16;
  const std::int64_t part = (count + n * kLine - 1) / (n * kLine) * kLine;
  return {std::min(count, r * part), std::min(count, (r + 1) * part)};
}

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
    check_addends(tensor, Operation::all_reduce);
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
    check_addends(input, Operation::reduce_scatter);
    check_parts(input, output, Operation::reduce_scatter);
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
    check_dense(input, Operation::all_gather);
    check_parts(output, input, Operation::all_gather);
    const auto bytes = static_cast<std::size_t>(input.numel()) * size_of(input.dtype());
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
    check_dense(tensor, Operation::broadcast);
    if (root < 0 || root >= size()) {
      throw InputError("broadcast: got root {}, expected a rank of this group, 0 to {}", root, size() - 1);
    }
    if (size() == 1) {
      return;
    }
    enter(Operation::broadcast, tensor, root);
    const auto bytes = static_cast<std::size_t>(tensor.numel()) * size_of(tensor.dtype());
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
    std::array<const T*, kMaxRanks> blocks;
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

  static void check_dense(const Tensor& tensor, Operation operation) {
    if (!tensor.defined() || !tensor.is_dense() || !tensor.device().is_cpu()) {
      throw InputError("{}: got {}, expected a dense CPU tensor", name_of(operation),
                       !tensor.defined() ? "an undefined tensor"
                       : tensor.device().is_cpu()
                           ? fmt::format("strides {} for shape {}", tensor.strides(), tensor.shape())
                           : "a tensor on " + tensor.device().to_string());
    }
  }

  static void check_addends(const Tensor& tensor, Operation operation) {
    check_dense(tensor, operation);
    if (tensor.dtype() != DType::f32 && tensor.dtype() != DType::f64) {
      throw InputError("{}: got {}, expected f32 or f64", name_of(operation), tensor.dtype());
    }
  }

  void check_parts(const Tensor& whole, const Tensor& part, Operation operation) const {
    check_dense(whole, operation);
    check_dense(part, operation);
    if (whole.dtype() != part.dtype() || whole.numel() != part.numel() * size()) {
      throw InputError("{}: got {} {} and {} {}, expected one type and {} equal parts", name_of(operation),
                       whole.dtype(), whole.shape(), part.dtype(), part.shape(), size());
    }
  }

  std::shared_ptr<ThreadGroup> group_;
  int rank_;
  std::vector<double> scratch_;  // allocated here, because nothing may throw between the gates
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_thread_group(int size,
                                                             std::chrono::duration<double> timeout) {
  if (size < 1 || size > kMaxRanks) {
    throw InputError("make_thread_group: got {} ranks, expected 1 to {}", size, kMaxRanks);
  }
  const auto group = std::make_shared<ThreadGroup>(size, timeout);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int r = 0; r < size; ++r) {
    ranks.push_back(std::make_unique<ThreadCommunicator>(group, r));
  }
  return ranks;
}

}  // namespace millrace
