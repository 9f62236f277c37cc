#include "nn/optimizers/adagrad.h"

#include <cmath>

#include "nn/optimizers/flat_part.h"
#include "tensor/kernels/launch.h"

namespace millrace::nn {

OptimizerFacts facts_of(const AdagradOptions& options) {
  return {.kind = "Adagrad",
          .numbers = {{"learning rate", options.learning_rate},
                      {"eps", options.eps},
                      {"weight decay", options.weight_decay}},
          .state = {"mean", "mean_sq"}};
}

/// Adam's step without averages: the mean of n squares and its factor n are the sum of squares.
void update(const AdagradOptions& options, const FlatPart& part) {
  Tensor weights = part.weights(), mean = part.state("mean"), mean_sq = part.state("mean_sq");
  const auto taken = static_cast<double>(part.step.number + 1 - part.frozen_steps);
  const AdamStep step{.gradient = part.gradient_step(options.weight_decay),
                      .learning_rate = static_cast<float>(options.learning_rate * part.rate),
                      .rate1 = 1,
                      .rate2 = static_cast<float>(1 / taken),
                      .eps = static_cast<float>(options.eps),
                      .correction = static_cast<float>(std::sqrt(taken))};
  MILLRACE_LAUNCH(weights.device(), adam_step, weights, part.gradients(), mean, mean_sq, step);
}

}  // namespace millrace::nn
