#pragma once

namespace millrace::nn {

struct FlatPart;
struct OptimizerFacts;  // nn/optimizers/kind.h says what a kind is
template <typename Options>
struct OptimizerOf;

/// As torch.optim.SGD.
struct SgdOptions {
  double learning_rate = 0.01;
  double momentum = 0;
  double weight_decay = 0;  ///< Added to the gradient, times the weight.
  bool nesterov = false;
  bool operator==(const SgdOptions&) const = default;
};
using Sgd = OptimizerOf<SgdOptions>;

OptimizerFacts facts_of(const SgdOptions& options);
void update(const SgdOptions& options, const FlatPart& part);

}  // namespace millrace::nn
