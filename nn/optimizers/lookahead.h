#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nn/flat.h"
#include "nn/optimizers/schedule.h"
#include "nn/state.h"

namespace millrace::nn {

struct LookaheadOptions {
  std::int64_t every = 5;  ///< Steps from one update of the average to the next.
  /// The part of the average that an update keeps, from 0 to 1, as a function of the steps taken so far.
  Schedule decay = [](std::int64_t) { return 0.5; };
  /// After an update the weights go on from the average. Where they do not, it is an exponential moving
  /// average (EMA): training does not see it, and a Trainer evaluates with it.
  bool go_on_from_average = true;
};

/// "lookahead every 5 steps"
std::string describe(const LookaheadOptions& options);

/// An average of the weights over the steps, and of the running statistics; a frozen parameter is its own.
/// Zhang et al., arXiv 1907.08610.
///
/// In a hand-written loop: `after_step` behind each step of the optimizer, and `finish` at the end.
class Lookahead {
 public:
  /// `flat` are the parameters of `module`. @throws InputError when there are no steps between updates.
  Lookahead(FlatParameters& flat, const Module& module, LookaheadOptions options);
  /// The average starts anew from the weights and running statistics as they are.
  void start();
  /// `steps` have been taken. @throws InputError when the decay is out of range.
  void after_step(std::int64_t steps);
  /// The weights and running statistics become the average.
  void finish();
  /// The average takes the place of weights and running statistics, and they take its place.
  void exchange();

  const LookaheadOptions& options() const { return options_; }
  /// Average weights and running statistics by their names, as views.
  const StateDict& state_dict() const { return state_; }

 private:
  struct Pair {
    Tensor live, average;
  };
  void follow_frozen();
  void count_change();

  FlatParameters& flat_;
  const LookaheadOptions options_;
  std::vector<Pair> pairs_;  // all weights first, then each running statistic
  StateDict state_;
};

}  // namespace millrace::nn
