#pragma once

#include "tensor/tensor.h"

namespace millrace::cuda {

/// `weight` (f32 O, I, H, W, row-major) as engines read it: in `dtype`, O, H, W, I in memory. This thread
/// keeps it until the weight is changed, so a step converts each weight once. The reference holds until the
/// next call.
const Tensor& weights_for_engines(const Tensor& weight, DType dtype);

}  // namespace millrace::cuda
