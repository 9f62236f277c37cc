#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "nn/module.h"

namespace millrace::nn {

/// What is on and what is off in a network: the training mode of each module, `requires_grad` of each
/// parameter.
class Switches {
 public:
  /// Of the modules and parameters that `network` has now.
  explicit Switches(Module& network);
  /// 1 or 0 for each module, parents first, then for each parameter.
  std::vector<std::uint8_t> state() const;
  /// @throws InputError when `state` is of another number of switches.
  void set(std::span<const std::uint8_t> state);

 private:
  std::vector<Module*> modules_;
  std::vector<Variable> parameters_;
};

/// While it lives, a network is in evaluation mode; then each module is in the mode it was in.
class EvaluationScope {
 public:
  explicit EvaluationScope(Module& network);
  ~EvaluationScope();
  EvaluationScope(const EvaluationScope&) = delete;
  EvaluationScope& operator=(const EvaluationScope&) = delete;

 private:
  std::vector<std::pair<Module*, bool>> modes_;  // parents first
};

}  // namespace millrace::nn
