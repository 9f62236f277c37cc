#include "nn/optimizers/adam.h"

#include <cmath>

#include "nn/optimizers/flat_part.h"
#include "tensor/kernels/launch.h"

namespace millrace::nn {

namespace {

template <typename AdamLike>
OptimizerFacts facts(std::string_view kind, const AdamLike& options) {
  return {.kind = kind,
          .numbers = {{"learning rate", options.learning_rate},
                      {"first beta", options.betas[0], true},
                      {"second beta", options.betas[1], true},
                      {"eps", options.eps},
                      {"weight decay", options.weight_decay}},
          .state = {"exp_avg", "exp_avg_sq"}};
}

/// `shrink` is what a weight is multiplied with.
template <typename AdamLike>
void update_adam(const AdamLike& options, double weight_decay, double shrink, const FlatPart& part) {
  Tensor weights = part.weights(), exp_avg = part.state("exp_avg"), exp_avg_sq = part.state("exp_avg_sq");
  const auto taken = static_cast<double>(part.step.number + 1 - part.frozen_steps);
  const auto missing = [&](double beta) { return 1 - std::pow(beta, taken); };  // to a whole average
  const AdamStep step{
      .gradient = part.gradient_step(weight_decay),
      .learning_rate = static_cast<float>(options.learning_rate * part.rate / missing(options.betas[0])),
      .rate1 = static_cast<float>(1 - options.betas[0]),
      .rate2 = static_cast<float>(1 - options.betas[1]),
      .eps = static_cast<float>(options.eps),
      .correction = static_cast<float>(1 / std::sqrt(missing(options.betas[1]))),
      .shrink = static_cast<float>(shrink)};
  MILLRACE_LAUNCH(weights.device(), adam_step, weights, part.gradients(), exp_avg, exp_avg_sq, step);
}

}  // namespace

OptimizerFacts facts_of(const AdamOptions& options) { return facts("Adam", options); }
OptimizerFacts facts_of(const AdamWOptions& options) { return facts("AdamW", options); }

void update(const AdamOptions& options, const FlatPart& part) {
  update_adam(options, options.weight_decay, 1, part);
}

void update(const AdamWOptions& options, const FlatPart& part) {
  update_adam(options, 0, 1 - options.learning_rate * part.rate * options.weight_decay, part);
}

}  // namespace millrace::nn
