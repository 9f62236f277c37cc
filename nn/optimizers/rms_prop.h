#pragma once

namespace millrace::nn {

struct FlatPart;
struct OptimizerFacts;  // nn/optimizers/kind.h says what a kind is
template <typename Options>
struct OptimizerOf;

/// As torch.optim.RMSprop.
struct RmsPropOptions {
  double learning_rate = 0.01;
  double alpha = 0.99;  ///< Of the average of the gradients' squares.
  double eps = 1e-8;
  double momentum = 0;
  bool centered = false;    ///< The gradients' variance in place of the mean of their squares.
  double weight_decay = 0;  ///< Added to the gradient, times the weight.
  bool operator==(const RmsPropOptions&) const = default;
};
using RmsProp = OptimizerOf<RmsPropOptions>;

OptimizerFacts facts_of(const RmsPropOptions& options);
void update(const RmsPropOptions& options, const FlatPart& part);

}  // namespace millrace::nn
