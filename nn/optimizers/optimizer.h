#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nn/flat.h"
#include "nn/module.h"
#include "nn/optimizers/optimizer_options.h"
#include "nn/optimizers/schedule.h"
#include "nn/state.h"

namespace millrace::nn {

/// Where a step stands in a training, and what is to be done with its gradients.
struct OptimizerStep {
  std::int64_t number = 0;    ///< From 0. Schedules and Adam's correction of its averages go by it.
  double gradient_scale = 1;  ///< Multiplies every gradient.
  /// If defined, f32 on the weights' device: with 0 at its start nothing is updated (but the step counts),
  /// and what follows is a further factor on the gradients.
  Tensor control = {};
};

/// Updates a network's parameters by PyTorch's rules (SGD, Adam, AdamW, RMSProp) or Muon's, over flat
/// buffers: one fused pass a run of neighbouring parameters that are of one group.
///
/// Made from a module, it owns the module's FlatParameters and BatchNorm updates its running statistics in
/// each forward pass, as in PyTorch: the optimizer of a hand-written loop, which calls `zero_grad` and
/// `step()`. A parameter without a gradient counts as one with a gradient of zero; one that is frozen
/// (`set_requires_grad(false)`) stays as it is, with its momentum and its averages, until it is trainable
/// again; Adam does not count the steps between.
class Optimizer {
 public:
  /// `schedule` multiplies the learning rate; none leaves it as it is.
  /// @throws InputError naming options out of range.
  Optimizer(FlatParameters& flat, const OptimizerOptions& options, Schedule schedule = {});
  Optimizer(Module& module, const OptimizerOptions& options, Schedule schedule = {});
  ~Optimizer();
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// Parameters whose name contains `word` get options of their own from now on, also of another kind, and a
  /// schedule of their own in place of the others'; with none, they follow the others'.
  /// @throws InputError when no name contains it.
  void group(std::string_view word, const OptimizerOptions& options, Schedule schedule = {});
  /// @throws InputError naming a parameter that was frozen when this was made and is trainable now.
  void zero_grad();
  /// One update: the one after the last, or (a trainer's) of the given number. At a rate of 0 the weights
  /// stay as they are. @throws InputError where Muon is to step a parameter of one dimension.
  void step() { step({.number = steps()}); }
  void step(const OptimizerStep& step);
  /// The update of elements [begin, end) of the flat weights alone, whose gradients must be complete. Parts
  /// in ascending order that cover all weights make one step, the same to the bit. What Muon steps, it steps
  /// as a whole, with the part that holds its end.
  void step_part(std::int64_t begin, std::int64_t end, const OptimizerStep& step);

  FlatParameters& flat() { return *flat_; }
  /// PyTorch's names (momentum_buffer, exp_avg ...), each a buffer like `flat().weights()`.
  std::map<std::string, Tensor>& buffers() { return buffers_; }
  /// What a step goes on from, as views: "conv1.weight.exp_avg" of each parameter, "step", their number, and
  /// "frozen_steps", i64 on the CPU, for how many of them each parameter was frozen.
  StateDict state_dict() const;
  /// The state with "frozen_steps" of zero where it has none, as older ones.
  StateDict completed(StateDict state) const;
  /// @throws InputError naming every missing, unexpected or wrongly shaped entry.
  void load_state_dict(const StateDict& state);
  /// Kind and options on one line, those of groups with the first and the last of their parameters.
  std::string describe() const;
  /// So many were taken.
  const Tensor& frozen_steps() const { return frozen_steps_; }
  std::int64_t steps() const { return *steps_.data<std::int64_t>(); }

 private:
  struct Group {
    OptimizerOptions options;
    Schedule schedule;  // the first is everybody's who has none
  };
  /// Neighbouring parameters of one group: slots [first, last), elements [begin, end) of the flat buffers.
  struct Run {
    std::size_t group, first, last;
    std::int64_t begin, end;
  };
  Optimizer(std::unique_ptr<FlatParameters> flat, const OptimizerOptions& options, Schedule schedule);
  void arrange();
  void step_run(const Run& run, std::int64_t begin, std::int64_t end, const OptimizerStep& step);

  std::unique_ptr<FlatParameters> owned_;  // null when the flat buffers are the caller's
  FlatParameters* flat_;
  std::vector<Group> groups_;
  std::vector<std::size_t> group_of_;  // by slot
  std::vector<Run> runs_;
  std::map<std::string, Tensor> buffers_;
  Tensor steps_ = zeros({}, {.dtype = DType::i64});
  Tensor frozen_steps_;  // by slot
};

/// The optimizers of hand-written loops: `nn::Adam optimizer(net, {.learning_rate = 0.001});`
template <typename Options>
struct OptimizerOf : Optimizer {
  template <typename Weights>
  explicit OptimizerOf(Weights& weights, const Options& options = {}, Schedule schedule = {})
      : Optimizer(weights, options, std::move(schedule)) {}
};

}  // namespace millrace::nn
