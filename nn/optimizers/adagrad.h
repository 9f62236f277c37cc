#pragma once

namespace millrace::nn {

struct FlatPart;
struct OptimizerFacts;  // nn/optimizers/kind.h says what a kind is
template <typename Options>
struct OptimizerOf;

/// Duchi, Hazan and Singer, 2011; as torch.optim.Adagrad.
struct AdagradOptions {
  double learning_rate = 0.01;
  double eps = 1e-10;
  double weight_decay = 0;  ///< Added to the gradient, times the weight.
  bool operator==(const AdagradOptions&) const = default;
};
using Adagrad = OptimizerOf<AdagradOptions>;

OptimizerFacts facts_of(const AdagradOptions& options);
void update(const AdagradOptions& options, const FlatPart& part);

}  // namespace millrace::nn
