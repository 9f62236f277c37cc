#include "nn/optimizers/muon.h"

#include <cmath>
#include <limits>

#include "nn/optimizers/flat_part.h"
#include "tensor/kernels/launch.h"
#include "tensor/ops.h"

namespace millrace::nn {

namespace {

/// The root of the sum of squares, and no less than 1e-7; no dimensions.
Tensor frobenius_norm(const Tensor& matrix) {
  return clamp(sqrt(sum(matrix * matrix)), 1e-7, std::numeric_limits<float>::max());
}

/// What the momentum asks for: SGD's step with a rate of -1, from zero. Zero when the step is skipped.
Tensor direction(const MuonOptions& options, const FlatPart& part) {
  Tensor from_zero = zeros({part.end - part.begin}, {.device = part.flat.weights().device()}),
         momentum = part.state("momentum_buffer");
  const SgdStep step{.gradient = part.gradient_step(0),
                     .learning_rate = -1,
                     .momentum = static_cast<float>(options.momentum),
                     .nesterov = options.nesterov};
  MILLRACE_LAUNCH(from_zero.device(), sgd_step, from_zero, part.gradients(), momentum, step);
  return from_zero;
}

/// Steps one whole parameter.
void update_slot(const MuonOptions& options, const FlatParameters::Slot& slot, const FlatPart& part) {
  const Shape& shape = slot.parameter.shape();
  if (shape.size() < 2) {
    throw InputError("Muon: {} is {}, expected filters or matrices; give it to another optimizer with group",
                     slot.name, shape);
  }
  const Tensor wanted = direction(options, part).view({shape[0], -1});
  const double rate = options.learning_rate * part.rate;
  if (rate == 0) {
    return;
  }
  Tensor weights = part.weights().view(wanted.shape());
  if (options.normalize_weights) {
    Tensor factor = std::sqrt(static_cast<double>(shape[0])) / frobenius_norm(weights);
    if (part.step.control.defined()) {  // 1 when the step is skipped
      const Tensor apply = part.step.control.select(0, 0);
      factor = factor * apply + (1 - apply);
    }
    weights.mul_(factor);
  }
  weights.add_(orthogonalized(wanted, options.newton_schulz_steps), -rate);
}

}  // namespace

OptimizerFacts facts_of(const MuonOptions& options) {
  OptimizerFacts facts{.kind = "Muon",
                       .numbers = {{"learning rate", options.learning_rate},
                                   {"momentum", options.momentum},
                                   {"Newton-Schulz steps", static_cast<double>(options.newton_schulz_steps)}},
                       .state = {"momentum_buffer"},
                       .only_matrices = true};
  if (options.nesterov) {
    facts.switches = {"nesterov"};
    facts.fault = options.momentum == 0 ? "nesterov needs a momentum above 0, got 0" : "";
  }
  if (options.normalize_weights) {
    facts.switches.emplace_back("normalized weights");
  }
  return facts;
}

void update(const MuonOptions& options, const FlatPart& part) {
  for (const auto& slot : part.flat.slots()) {
    const std::int64_t end = slot.offset + slot.size;
    if (part.begin < end && end <= part.end) {
      FlatPart whole = part;
      whole.begin = slot.offset;
      whole.end = end;
      update_slot(options, slot, whole);
    }
  }
}

Tensor orthogonalized(const Tensor& matrix, int steps) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;  // the slope at zero as steep as it may be
  const bool is_tall = matrix.size(0) > matrix.size(1);
  Tensor x = (is_tall ? matrix.t() : matrix) / frobenius_norm(matrix);
  for (int step = 0; step < steps; ++step) {
    const Tensor square = matmul(x, x.t());
    const Tensor factor = b * square + c * matmul(square, square);
    x = a * x + matmul(factor, x);
  }
  return is_tall ? x.t() : x;
}

}  // namespace millrace::nn
