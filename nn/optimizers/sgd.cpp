#include "nn/optimizers/sgd.h"

#include "nn/optimizers/flat_part.h"
#include "tensor/kernels/launch.h"

namespace millrace::nn {

OptimizerFacts facts_of(const SgdOptions& options) {
  OptimizerFacts facts{.kind = "SGD",
                       .numbers = {{"learning rate", options.learning_rate},
                                   {"momentum", options.momentum},
                                   {"weight decay", options.weight_decay}},
                       .state = {"momentum_buffer"}};
  if (options.nesterov) {
    facts.switches = {"nesterov"};
    facts.fault = options.momentum == 0 ? "nesterov needs a momentum above 0, got 0" : "";
  }
  return facts;
}

void update(const SgdOptions& options, const FlatPart& part) {
  Tensor weights = part.weights(), momentum = part.state("momentum_buffer");
  const SgdStep step{.gradient = part.gradient_step(options.weight_decay),
                     .learning_rate = static_cast<float>(options.learning_rate * part.rate),
                     .momentum = static_cast<float>(options.momentum),
                     .nesterov = options.nesterov};
  MILLRACE_LAUNCH(weights.device(), sgd_step, weights, part.gradients(), momentum, step);
}

}  // namespace millrace::nn
