#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "nn/flat.h"
#include "nn/module.h"

namespace millrace::nn {

struct SgdOptions {
  double learning_rate = 0.01;
  double momentum = 0;
  double weight_decay = 0;
  bool nesterov = false;
};

/// Stochastic gradient descent with PyTorch's update rule, over flat buffers: one fused pass a run of parameters
/// with equal options.
///
/// Made from a module, it owns the module's FlatParameters; `group` gives parameters whose name contains a word
/// options of their own (learning rates scale with the schedule alike).
class Sgd {
 public:
  Sgd(FlatParameters& flat, SgdOptions options);
  Sgd(Module& module, SgdOptions options);
  ~Sgd();
  Sgd(const Sgd&) = delete;
  Sgd& operator=(const Sgd&) = delete;

  /// Parameters whose name contains `word` get `options` from now on. @throws InputError when none matches.
  void group(std::string_view word, SgdOptions options);
  void zero_grad();
  /// One update; `rate` multiplies every learning rate (a schedule's value), `gradient_scale` every gradient.
  void step(double rate = 1, double gradient_scale = 1);
  FlatParameters& flat() { return *flat_; }
  Tensor& momentum() { return momentum_; }
  std::int64_t steps() const { return steps_; }

 private:
  std::unique_ptr<FlatParameters> owned_;
  FlatParameters* flat_;
  std::vector<SgdOptions> options_;  // one for each slot
  Tensor momentum_;
  std::int64_t steps_ = 0;
};

/// A factor on the learning rate as a function of progress in steps. Made by the functions below.
using Schedule = std::function<double(std::int64_t step)>;

Schedule constant_schedule();
Schedule step_schedule(std::int64_t every, double factor);
Schedule cosine_schedule(std::int64_t total, double end = 0);
/// Linear between (step, factor) points, constant outside them.
Schedule piecewise_linear_schedule(std::vector<std::pair<std::int64_t, double>> points);
/// Linear from 1 / (steps + 1) up to `after`'s value over the first `steps`.
Schedule warm_up(std::int64_t steps, Schedule after);

}  // namespace millrace::nn
