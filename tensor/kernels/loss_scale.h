#pragma once

#include <cstdint>

#include "tensor/kernels/kernel.h"

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

// Gradients that are all finite keep the scale, which doubles after kGrowth such steps in a row; else it is
// halved, the step is to be skipped, and the gradients become zero.
MILLRACE_KERNEL(update_loss_scale, Tensor& gradients, Tensor& state)

}  // namespace millrace
