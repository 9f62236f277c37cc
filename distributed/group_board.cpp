#include "distributed/group_board.h"

#include <atomic>
#include <mutex>
#include <vector>

#include "base/error.h"

namespace millrace {

std::string GroupBoard::describe() const {
  std::string text;
  for (int r = 0; r < size(); ++r) {
    const std::optional<Reached> last = reached(r);
    if (!last) {
      continue;
    }
    text += fmt::format("{}rank {} reached {}", text.empty() ? "" : ", ", r, name_of(last->operation));
    if (last->number > 0) {
      text += fmt::format(" (operation {})", last->number);
    }
  }
  return text;
}

std::string GroupBoard::bad_news(std::uint64_t number) const {
  if (std::string why = reason(); !why.empty()) {
    return why;
  }
  for (int r = 0; r < size(); ++r) {
    const std::optional<Reached> last = reached(r);
    if (last && last->operation == Operation::leave && last->number < number) {
      return fmt::format("rank {} has left the group", r);
    }
  }
  return {};
}

namespace {

class SharedBoard final : public GroupBoard {
 public:
  explicit SharedBoard(int size) : reached_(static_cast<std::size_t>(size)) {}

  int size() const override { return static_cast<int>(reached_.size()); }
  void reach(int rank, Reached reached) override {
    place(rank).store(reached.number << 8 | static_cast<std::uint64_t>(reached.operation));
  }
  std::optional<Reached> reached(int rank) const override {
    const std::uint64_t word = reached_[static_cast<std::size_t>(rank)].load();
    return Reached{.number = word >> 8, .operation = static_cast<Operation>(word & 0xff)};
  }
  void end(const std::string& reason) override {
    const std::lock_guard lock(mutex_);
    if (reason_.empty()) {
      reason_ = reason;
    }
  }
  std::string reason() const override {
    const std::lock_guard lock(mutex_);
    return reason_;
  }

 private:
  std::atomic<std::uint64_t>& place(int rank) { return reached_[static_cast<std::size_t>(rank)]; }

  std::vector<std::atomic<std::uint64_t>> reached_;  // number << 8 | operation
  mutable std::mutex mutex_;
  std::string reason_;
};

}  // namespace

std::shared_ptr<GroupBoard> make_shared_board(int size) { return std::make_shared<SharedBoard>(size); }

}  // namespace millrace
