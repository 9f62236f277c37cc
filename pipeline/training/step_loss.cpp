#include "pipeline/training/step_loss.h"

#include "distributed/tree_sum.h"
#include "pipeline/training/travelling_losses.h"

namespace millrace {

StepLoss::StepLoss(std::shared_ptr<const TravellingLosses> losses) : losses_(std::move(losses)) {}

bool StepLoss::ready() const { return !losses_ || losses_->is_there(); }

StepLoss::operator double() const {
  if (losses_) {
    losses_->wait();
    const auto count = static_cast<std::size_t>(losses_->shards.numel());
    value_ = tree_sum(std::span<const double>(losses_->shards.data<double>(), count));
    losses_.reset();
  }
  return value_;
}

}  // namespace millrace
