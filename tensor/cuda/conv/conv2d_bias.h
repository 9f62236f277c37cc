#pragma once

#include "tensor/tensor.h"

namespace millrace::cuda {

/// Adds bias [C], f32, to each place of `out` (N, C, H, W, channels-last), which is rounded once more.
void add_bias(const Tensor& bias, Tensor& out);

}  // namespace millrace::cuda
