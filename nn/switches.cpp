#include "nn/switches.h"

namespace millrace::nn {

Switches::Switches(Module& network) : modules_(network.modules()), parameters_(network.parameters()) {}

std::vector<std::uint8_t> Switches::state() const {
  std::vector<std::uint8_t> state;
  state.reserve(modules_.size() + parameters_.size());
  for (const Module* module : modules_) {
    state.push_back(module->is_training());
  }
  for (const Variable& parameter : parameters_) {
    state.push_back(parameter.requires_grad());
  }
  return state;
}

void Switches::set(std::span<const std::uint8_t> state) {
  if (state.size() != modules_.size() + parameters_.size()) {
    throw InputError("switches: got {}, expected {}: one for each of {} modules and {} parameters",
                     state.size(), modules_.size() + parameters_.size(), modules_.size(), parameters_.size());
  }
  std::size_t i = 0;
  for (Module* module : modules_) {  // `train` reaches the children too, whose turn comes later
    module->train(state[i++] != 0);
  }
  for (Variable& parameter : parameters_) {
    parameter.set_requires_grad(state[i++] != 0);
  }
}

EvaluationScope::EvaluationScope(Module& network) {
  for (Module* module : network.modules()) {
    modes_.emplace_back(module, module->is_training());
  }
  network.eval();
}

EvaluationScope::~EvaluationScope() {
  for (const auto& [module, training] : modes_) {
    module->train(training);
  }
}

}  // namespace millrace::nn
