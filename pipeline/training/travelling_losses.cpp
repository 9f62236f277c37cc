#include "pipeline/training/travelling_losses.h"

#include <algorithm>
#include <iterator>
#include <utility>

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

LossPlaces::LossPlaces(std::int64_t shards, std::vector<std::shared_ptr<Communicator>> group)
    : shards_(shards), group_(std::move(group)) {
  add();
}

/// For the next steps, in one block of pinned memory.
void LossPlaces::add() {
  const auto bytes = static_cast<std::size_t>(kMostAhead * shards_) * sizeof(double);
  const Tensor block(Storage::allocate_pinned(bytes), 0, {kMostAhead, shards_}, {shards_, 1}, DType::f64);
  for (std::int64_t i = 0; i < kMostAhead; ++i) {
    auto& losses = places_.emplace_back(std::make_shared<TravellingLosses>());
    losses->shards = block.select(0, i);
    losses->arrived.resize(group_.size());
    losses->group = group_;
  }
}

std::shared_ptr<TravellingLosses> LossPlaces::next() {
  auto place = std::ranges::find_if(places_, [](const auto& losses) { return losses.use_count() == 1; });
  if (place == places_.end()) {
    add();
    place = std::prev(places_.end(), kMostAhead);
  }
  places_.splice(places_.end(), places_, place);
  places_.back()->wait();
  places_.back()->shards.zero_();
  return places_.back();
}

}  // namespace millrace
