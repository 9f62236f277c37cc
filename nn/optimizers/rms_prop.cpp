#include "nn/optimizers/rms_prop.h"

#include "nn/optimizers/flat_part.h"
#include "tensor/kernels/launch.h"

namespace millrace::nn {

OptimizerFacts facts_of(const RmsPropOptions& options) {
  OptimizerFacts facts{.kind = "RMSProp",
                       .numbers = {{"learning rate", options.learning_rate},
                                   {"alpha", options.alpha, true},
                                   {"eps", options.eps},
                                   {"momentum", options.momentum},
                                   {"weight decay", options.weight_decay}},
                       .state = {"square_avg"}};
  if (options.centered) {
    facts.switches = {"centered"};
    facts.state.emplace_back("grad_avg");
  }
  if (options.momentum > 0) {
    facts.state.emplace_back("momentum_buffer");
  }
  return facts;
}

void update(const RmsPropOptions& options, const FlatPart& part) {
  Tensor weights = part.weights(), square_avg = part.state("square_avg"), grad_avg = part.state("grad_avg"),
         momentum = part.state("momentum_buffer");
  const RmsPropStep step{.gradient = part.gradient_step(options.weight_decay),
                         .learning_rate = static_cast<float>(options.learning_rate * part.rate),
                         .rate = static_cast<float>(1 - options.alpha),
                         .eps = static_cast<float>(options.eps),
                         .momentum = static_cast<float>(options.momentum),
                         .centered = options.centered};
  MILLRACE_LAUNCH(weights.device(), rms_prop_step, weights, part.gradients(), square_avg, grad_avg, momentum,
                  step);
}

}  // namespace millrace::nn
