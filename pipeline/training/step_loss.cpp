#include "pipeline/training/step_loss.h"

#include <algorithm>

#include "distributed/tree_sum.h"

namespace millrace {

bool TravellingLosses::is_there() const { return std::ranges::all_of(arrived, &Event::is_done); }

void TravellingLosses::wait() const {
  await();
  std::ranges::for_each(arrived, &Event::synchronize);
}

void TravellingLosses::await() const {
  for (std::size_t r = 0; r < arrived.size(); ++r) {
    if (!arrived[r].is_done()) {
      group[r]->wait(arrived[r]);
    }
  }
}

TravellingLosses::~TravellingLosses() {
  try {
    await();
  } catch (const std::exception&) {  // whoever uses the trainer next hears of it
  }
}

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
