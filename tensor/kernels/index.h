#pragma once

#include "tensor/kernels/kernel.h"

namespace millrace {

// Any strides.
MILLRACE_KERNEL(index_select, const Tensor& x, int dim, const Tensor& index, Tensor& out)
MILLRACE_KERNEL(gather, const Tensor& x, int dim, const Tensor& index, Tensor& out)
MILLRACE_KERNEL(scatter_add, Tensor& into, int dim, const Tensor& index, const Tensor& source)  // accumulates

}  // namespace millrace
