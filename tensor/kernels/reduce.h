#pragma once

#include "tensor/kernels/kernel.h"
#include "tensor/kernels/operations.h"

namespace millrace {

// Any strides. `out` has x's dims, reduced ones of size 1; argmax's is i64.
MILLRACE_KERNEL(reduce, ReduceOp op, const Tensor& x, Tensor& out)
MILLRACE_KERNEL(argmax, const Tensor& x, int dim, Tensor& out)

}  // namespace millrace
