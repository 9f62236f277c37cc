#pragma once

#include "tensor/kernels/kernel.h"

namespace millrace {

// Two or three dimensions, any of a, b transposed by strides; `bias` [n], dense, may be undefined.
MILLRACE_KERNEL(matmul, const Tensor& a, const Tensor& b, const Tensor& bias, Tensor& out)

}  // namespace millrace
