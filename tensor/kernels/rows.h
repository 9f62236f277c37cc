#pragma once

#include "tensor/kernels/kernel.h"

namespace millrace {

// Rows: x is [rows, columns], row-major.
MILLRACE_KERNEL(softmax, const Tensor& x, Tensor& out)
MILLRACE_KERNEL(softmax_backward, const Tensor& grad, const Tensor& out, Tensor& grad_x)
MILLRACE_KERNEL(log_softmax, const Tensor& x, Tensor& out)
MILLRACE_KERNEL(log_softmax_backward, const Tensor& grad, const Tensor& out, Tensor& grad_x)
// losses[row] = cross entropy of softmax(logits) against the label smoothed by `smoothing`; `labels` is i64
// [rows]. `log_probabilities` is kept for the backward pass.
MILLRACE_KERNEL(cross_entropy_forward, const Tensor& logits, const Tensor& labels, double smoothing,
                Tensor& log_probabilities, Tensor& losses)
// grad_logits[row] = grad[row] * d losses[row] / d logits[row]; grad is f32 [rows] or expanded from one
// number.
MILLRACE_KERNEL(cross_entropy_backward, const Tensor& grad, const Tensor& log_probabilities,
                const Tensor& labels, double smoothing, Tensor& grad_logits)

}  // namespace millrace
