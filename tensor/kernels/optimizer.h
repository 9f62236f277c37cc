#pragma once

#include "tensor/kernels/kernel.h"

namespace millrace {

/// What the optimizers' passes have in common: g = gradient_scale * grad + weight_decay * w. Where there is a
/// `control` on the weights' device, nothing is updated with 0 at its start, and what follows is a further
/// factor on the gradient.
struct GradientStep {
  float gradient_scale = 1;
  float weight_decay = 0;
  const float* control = nullptr;
};
/// m = momentum * m + g; w -= learning_rate * (nesterov ? g + momentum * m : m)
struct SgdStep {
  GradientStep gradient = {};
  float learning_rate = 0;
  float momentum = 0;
  bool nesterov = false;
};
/// m += rate1 * (g - m); v += rate2 * (g^2 - v);
/// w = shrink * w - learning_rate * m / (correction * sqrt(v) + eps)
struct AdamStep {
  GradientStep gradient = {};
  float learning_rate = 0;
  float rate1 = 0, rate2 = 0, eps = 0;
  float correction = 1;
  float shrink = 1;
};
/// s += rate * (g^2 - s); a += rate * (g - a) where centered, else 0; u = g / (sqrt(s - a^2) + eps);
/// m = momentum * m + u where there is a momentum, else u; w -= learning_rate * m.
/// Buffers that are not needed may be undefined.
struct RmsPropStep {
  GradientStep gradient = {};
  float learning_rate = 0;
  float rate = 0, eps = 0, momentum = 0;
  bool centered = false;
};

// One pass over flat f32 buffers, by the formulas at their options.
MILLRACE_KERNEL(sgd_step, Tensor& weight, const Tensor& grad, Tensor& momentum, const SgdStep& step)
MILLRACE_KERNEL(adam_step, Tensor& weight, const Tensor& grad, Tensor& exp_avg, Tensor& exp_avg_sq,
                const AdamStep& step)
MILLRACE_KERNEL(rms_prop_step, Tensor& weight, const Tensor& grad, Tensor& square_avg, Tensor& grad_avg,
                Tensor& momentum, const RmsPropStep& step)

}  // namespace millrace
