#pragma once

#include "tensor/kernels/kernels.h"

/// Kernels of a training step alone; see kernels.h.
namespace millrace {

/// Dynamic loss scaling (Micikevicius et al., 2018): what its state holds, f32 [4].
struct LossScale {
  enum Place : std::uint8_t { apply, inverse, scale, good_steps };  // apply: 1, or 0 to skip the step
  /// Losses are sums, and so are gradients of filters, which a convolution makes in f16 (at most 65504). In
  /// the first step of our networks the largest have 0.17 a sample: with 32 a shard of 1024 samples comes to
  /// 5,600, and gradients of one sample's activations keep all their digits from 2e-6 up.
  static constexpr float kFirst = 32;
  static constexpr float kGrowth = 2000, kLargest = 16777216;
};

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

// - normalize_pixels: out = scale * pixel + bias, a pair for each channel. `pixels`: u8 [N, C, H, W],
//   channels-last; `scale`, `bias`: f32 [C].
// - update_loss_scale: gradients that are all finite keep the scale, which doubles after kGrowth such steps
// in
//   a row; else it is halved, the step is to be skipped, and the gradients become zero.
// - sgd_step, adam_step, rms_prop_step: one pass over flat f32 buffers, by the formulas at their options.
#define MILLRACE_TRAINING_KERNELS                                                                    \
  void normalize_pixels(const Tensor& pixels, const Tensor& scale, const Tensor& bias, Tensor& out); \
  void update_loss_scale(Tensor& gradients, Tensor& state);                                          \
  void sgd_step(Tensor& weight, const Tensor& grad, Tensor& momentum, const SgdStep& step);          \
  void adam_step(Tensor& weight, const Tensor& grad, Tensor& exp_avg, Tensor& exp_avg_sq,            \
                 const AdamStep& step);                                                              \
  void rms_prop_step(Tensor& weight, const Tensor& grad, Tensor& square_avg, Tensor& grad_avg,       \
                     Tensor& momentum, const RmsPropStep& step);

namespace cpu {
MILLRACE_TRAINING_KERNELS
}
namespace cuda {
MILLRACE_TRAINING_KERNELS
}
#undef MILLRACE_TRAINING_KERNELS

}  // namespace millrace
