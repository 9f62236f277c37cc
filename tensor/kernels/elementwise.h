#pragma once

#include "tensor/kernels/kernel.h"
#include "tensor/kernels/operations.h"

namespace millrace {

// Any strides, any types (see tensor/ops.h for which meet).
MILLRACE_KERNEL(fill, Tensor& out, double value)
MILLRACE_KERNEL(copy, const Tensor& source, Tensor& out)  // same shape, any strides; converts
// a and b: expanded to out's shape; one type
MILLRACE_KERNEL(binary, BinaryOp op, const Tensor& a, const Tensor& b, Tensor& out)
MILLRACE_KERNEL(binary_scalar, BinaryOp op, const Tensor& a, double b, Tensor& out)
MILLRACE_KERNEL(add_scaled, const Tensor& a, const Tensor& b, double alpha, Tensor& out)  // a + alpha * b
MILLRACE_KERNEL(compare, CompareOp op, const Tensor& a, const Tensor& b, Tensor& out)     // out: u8
MILLRACE_KERNEL(clamp, const Tensor& x, double low, double high, Tensor& out)
MILLRACE_KERNEL(where, const Tensor& condition, const Tensor& a, const Tensor& b, Tensor& out)
MILLRACE_KERNEL(unary, UnaryOp op, const Tensor& x, Tensor& out)
// The gradient of `unary` with respect to x, given x and out = op(x) (either may be undefined where op does
// not need it).
MILLRACE_KERNEL(unary_backward, UnaryOp op, const Tensor& grad, const Tensor& x, const Tensor& out,
                Tensor& grad_x)
MILLRACE_KERNEL(arange, double start, double step, Tensor& out)

}  // namespace millrace
