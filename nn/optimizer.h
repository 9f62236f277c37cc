#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nn/flat.h"
#include "nn/module.h"
#include "nn/state.h"

namespace millrace::nn {

struct SgdOptions {
  double learning_rate = 0.01;
  double momentum = 0;
  double weight_decay = 0;
  bool nesterov = false;
  bool operator==(const SgdOptions&) const = default;
};

/// Stochastic gradient descent with PyTorch's update rule, over flat buffers: one fused pass a run of
/// parameters with equal options.
///
/// Made from a module, it owns the module's FlatParameters and BatchNorm updates its running statistics in
/// each forward pass, as in PyTorch: the optimizer of a hand-written loop. `group` gives parameters whose
/// name contains a word options of their own (learning rates scale with the schedule alike). A parameter
/// without a gradient counts as one with a gradient of zero.
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
  /// `control`, if defined, is f32 on the weights' device: with 0 at its start nothing is updated, and what
  /// follows is a further factor on the gradients.
  void step(double rate = 1, double gradient_scale = 1, const Tensor& control = {});
  /// The update of elements [begin, end) of the flat weights alone, whose gradients must be complete. Parts
  /// in ascending order that cover all weights make one step, the same to the bit.
  void step_part(std::int64_t begin, std::int64_t end, double rate, double gradient_scale,
                 const Tensor& control = {});
  FlatParameters& flat() { return *flat_; }
  /// One buffer like `flat().weights()`.
  Tensor& momentum() { return momentum_; }
  /// The same by the parameters' names, as views: PyTorch's momentum_buffer of each.
  StateDict momentum_dict() const;
  /// The options on one line, those of groups with the first and the last of their parameters.
  std::string describe() const;
  std::int64_t steps() const { return steps_; }

 private:
  /// Neighbouring parameters with equal options; places in the flat buffers.
  struct Run {
    SgdOptions options;
    std::int64_t begin, end;
  };
  Sgd(std::unique_ptr<FlatParameters> flat, SgdOptions options);
  void make_runs();

  std::unique_ptr<FlatParameters> owned_;  // null when the flat buffers are the caller's
  FlatParameters* flat_;
  std::vector<SgdOptions> options_;  // one for each slot
  std::vector<Run> runs_;
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
