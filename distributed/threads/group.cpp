#include "distributed/threads/group.h"

#include "base/error.h"

namespace millrace {

std::string Post::describe() const {
  if (operation == Operation::barrier) {
    return std::string(name_of(operation));
  }
  const std::string tensor = fmt::format("{} of {} {}", name_of(operation), dtype, shape);
  return root < 0 ? tensor : fmt::format("{} from rank {}", tensor, root);
}

ThreadGroup::ThreadGroup(int size, std::chrono::duration<double> timeout)
    : ranks_(static_cast<std::size_t>(size)),
      timeout_(std::chrono::duration_cast<Parking::Clock::duration>(timeout)) {}

void ThreadGroup::enter(int rank, const Post& post) {
  // After the end nothing is posted: a slower rank may still be reading what was.
  throw_if_ended(post.operation);
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

void ThreadGroup::leave() {
  const std::uint64_t gate = arrive([&] { gate_.fetch_add(1); });
  parking_.wait([&] { return passed(gate); });
}

const Post& ThreadGroup::post(int rank, int r) const {
  return ranks_[static_cast<std::size_t>(r)].posts[ranks_[static_cast<std::size_t>(rank)].operations % 2];
}

void ThreadGroup::end(const std::string& reason) {
  {
    const std::lock_guard lock(reason_mutex_);
    if (reason_.empty()) {
      reason_ = reason;
    }
  }
  gate_.fetch_or(kEnded);
  parking_.wake();
}

void ThreadGroup::throw_if_ended(Operation operation) {
  if (ended()) {
    throw_ended(operation);
  }
}

/// Counts this rank in and returns the number of the gate it stands at; the last to come opens it.
template <typename Open>
std::uint64_t ThreadGroup::arrive(Open&& open) {
  const std::uint64_t size = ranks_.size();
  const std::uint64_t before = arrivals_.fetch_add(1);
  const std::uint64_t gate = before / size + 1;
  if (before + 1 == gate * size) {
    open();
    parking_.wake();
  }
  return gate;
}

void ThreadGroup::open_unless_ended() {
  std::uint64_t now = gate_.load();
  while ((now & kEnded) == 0 && !gate_.compare_exchange_weak(now, now + 1)) {
  }
}

void ThreadGroup::check_agreement(std::uint64_t number) {
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

std::string ThreadGroup::describe_missing(std::uint64_t number, Operation operation) const {
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

void ThreadGroup::throw_ended(Operation operation) {
  const std::lock_guard lock(reason_mutex_);
  throw CommunicatorError("{}: {}", name_of(operation), reason_);
}

}  // namespace millrace
