#include "distributed/rendezvous/board.h"

#include "base/error.h"

namespace millrace {
namespace {

class RendezvousBoard final : public GroupBoard {
 public:
  RendezvousBoard(std::shared_ptr<Rendezvous> rendezvous, int first, int local)
      : rendezvous_(std::move(rendezvous)), first_(first), here_(make_shared_board(local)) {}

  int size() const override { return rendezvous_->place().size * here_->size(); }
  void reach(int rank, Reached reached) override {
    here_->reach(rank - first_, reached);
    if (rank == first_ && reached.operation != Operation::leave) {
      rendezvous_->count_operation();
    }
  }
  std::optional<Reached> reached(int rank) const override {
    const bool is_here = rank >= first_ && rank < first_ + here_->size();
    return is_here ? here_->reached(rank - first_) : std::nullopt;
  }
  void end(const std::string& reason) override {
    here_->end(reason);
    rendezvous_->fail(reason);
  }
  void end_unless_told(const std::string& reason) override {
    // NCCL sees that a peer is gone; the rendezvous knows which one, a moment later perhaps.
    if (here_->reason().empty() && rendezvous_->failure(std::chrono::seconds(1)).empty()) {
      end(reason);
    }
  }
  std::string reason() const override {
    const std::string own = here_->reason();
    return own.empty() ? rendezvous_->failure() : own;
  }

 private:
  const std::shared_ptr<Rendezvous> rendezvous_;
  const int first_;
  const std::shared_ptr<GroupBoard> here_;
};

}  // namespace

std::shared_ptr<GroupBoard> make_rendezvous_board(std::shared_ptr<Rendezvous> rendezvous, int first,
                                                  int local) {
  return std::make_shared<RendezvousBoard>(std::move(rendezvous), first, local);
}

}  // namespace millrace
