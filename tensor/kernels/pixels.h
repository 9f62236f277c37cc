#pragma once

#include "tensor/kernels/kernel.h"

namespace millrace {

// out = scale * pixel + bias, a pair for each channel. `pixels`: u8 [N, C, H, W], channels-last; `scale`,
// `bias`: f32 [C].
MILLRACE_KERNEL(normalize_pixels, const Tensor& pixels, const Tensor& scale, const Tensor& bias, Tensor& out)

}  // namespace millrace
