#pragma once

#include "tensor/kernels.h"

/// Kernels of a training step alone; see kernels.h.
namespace millrace {

/// Dynamic loss scaling (Micikevicius et al., 2018): what its state holds, f32 [4].
struct LossScale {
  enum Place : std::uint8_t { apply, inverse, scale, good_steps };  // apply: 1, or 0 to skip the step
  static constexpr float kFirst = 65536, kGrowth = 2000, kLargest = 16777216;
};

// - normalize_pixels: out = scale * pixel + bias, a pair for each channel. `pixels`: u8 [N, C, H, W],
//   channels-last; `scale`, `bias`: f32 [C].
// - update_loss_scale: gradients that are all finite keep the scale, which doubles after kGrowth such steps
// in
//   a row; else it is halved, the step is to be skipped, and the gradients become zero.
// - sgd_step_if: sgd_step, unless control[0] is 0; control[1] is a further factor on the gradient.
#define MILLRACE_TRAINING_KERNELS                                                                    \
  void normalize_pixels(const Tensor& pixels, const Tensor& scale, const Tensor& bias, Tensor& out); \
  void update_loss_scale(Tensor& gradients, Tensor& state);                                          \
  void sgd_step_if(const Tensor& control, Tensor& weight, const Tensor& grad, Tensor& momentum,      \
                   const SgdStep& step);

namespace cpu {
MILLRACE_TRAINING_KERNELS
}
namespace cuda {
MILLRACE_TRAINING_KERNELS
}
#undef MILLRACE_TRAINING_KERNELS

}  // namespace millrace
