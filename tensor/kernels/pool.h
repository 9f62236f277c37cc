#pragma once

#include "tensor/kernels/kernel.h"
#include "tensor/kernels/options.h"

namespace millrace {

// `index` holds the winner's place in its window, row by row: u8 where a window has at most 256 places, else
// i32.
MILLRACE_KERNEL(max_pool2d_forward, const Tensor& x, const Pool2dOptions& params, Tensor& out, Tensor& index)
MILLRACE_KERNEL(max_pool2d_backward, const Tensor& grad, const Tensor& index, const Pool2dOptions& params,
                Tensor& grad_x)
MILLRACE_KERNEL(avg_pool2d_forward, const Tensor& x, const Pool2dOptions& params,
                Tensor& out)  // padding counts, as in PyTorch
MILLRACE_KERNEL(avg_pool2d_backward, const Tensor& grad, const Pool2dOptions& params, Tensor& grad_x)

MILLRACE_KERNEL(pad2d_forward, const Tensor& x, const Pad2d& pad, PadMode mode, Tensor& out)
MILLRACE_KERNEL(pad2d_backward, const Tensor& grad, const Pad2d& pad, PadMode mode, Tensor& grad_x)

}  // namespace millrace
