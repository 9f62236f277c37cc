#include "nn/optimizers/lookahead.h"

namespace millrace::nn {

Lookahead::Lookahead(FlatParameters& flat, const Module& module, LookaheadOptions options)
    : flat_(flat), options_(std::move(options)) {
  if (options_.every < 1 || !options_.decay) {
    throw InputError("lookahead: got an update every {} steps{}, expected a number from 1 up and a decay",
                     options_.every, options_.decay ? "" : " and no decay");
  }
  const Tensor average = flat.weights().clone();
  pairs_.push_back({flat.weights(), average});
  for (const auto& slot : flat.slots()) {
    state_.emplace_back(slot.name, average.narrow(0, slot.offset, slot.size).view(slot.parameter.shape()));
  }
  for (const auto& [name, buffer] : module.named_buffers()) {
    if (is_floating(buffer.dtype())) {
      state_.emplace_back(name, buffer.clone());
      pairs_.push_back({buffer, state_.back().second});
    }
  }
}

void Lookahead::start() {
  for (Pair& pair : pairs_) {
    pair.average.copy_(pair.live);
  }
}

void Lookahead::after_step(std::int64_t steps) {
  if (steps % options_.every != 0) {
    return;
  }
  const double decay = options_.decay(steps);
  if (!(decay >= 0 && decay <= 1)) {
    throw InputError("lookahead: got a decay of {} after {} steps, expected a number from 0 to 1", decay,
                     steps);
  }
  follow_frozen();
  for (Pair& pair : pairs_) {
    pair.average.add_(pair.live - pair.average, 1 - decay);
  }
  if (options_.go_on_from_average) {
    finish();
  }
}

void Lookahead::finish() {
  follow_frozen();
  for (Pair& pair : pairs_) {
    pair.live.copy_(pair.average);
  }
  count_change();
}

void Lookahead::exchange() {
  for (Pair& pair : pairs_) {
    const Tensor live = pair.live.clone();
    pair.live.copy_(pair.average);
    pair.average.copy_(live);
  }
  count_change();
}

/// What is frozen is not to move to where it was before.
void Lookahead::follow_frozen() {
  for (std::size_t i = 0; i < flat_.slots().size(); ++i) {
    if (const Variable& parameter = flat_.slots()[i].parameter; !parameter.requires_grad()) {
      state_[i].second.copy_(parameter.data());
    }
  }
}

/// Parameters have version counts of their own.
void Lookahead::count_change() {
  for (const auto& slot : flat_.slots()) {
    slot.parameter.data().storage()->bump_version();
  }
}

std::string describe(const LookaheadOptions& options) {
  return fmt::format("{} every {} steps", options.go_on_from_average ? "lookahead" : "moving average",
                     options.every);
}

}  // namespace millrace::nn
