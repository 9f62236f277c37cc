#pragma once

#include "tensor/kernels/kernel.h"
#include "tensor/kernels/operations.h"

namespace millrace {

// Batch normalization over N, H, W; all vectors f32 [C], `weight` and `bias` may be undefined.
MILLRACE_KERNEL(batch_norm_statistics, const Tensor& x, Tensor& mean, Tensor& var)  // var: biased
MILLRACE_KERNEL(batch_norm_apply, const Tensor& x, const Tensor& mean, const Tensor& var, double eps,
                const Tensor& weight, const Tensor& bias, Tensor& out)
// With batch statistics the gradient flows through mean and var; with running ones (`training` false) it does
// not.
MILLRACE_KERNEL(batch_norm_backward, const Tensor& grad, const Tensor& x, const Tensor& mean,
                const Tensor& var, double eps, const Tensor& weight, bool training, Tensor& grad_x,
                Tensor& grad_weight, Tensor& grad_bias)

// The same with relu or gelu behind it, in one pass; the gradient needs its input alone. `residual`, added in
// between, may be undefined.
MILLRACE_KERNEL(batch_norm_activation_apply, UnaryOp activation, const Tensor& x, const Tensor& residual,
                const Tensor& mean, const Tensor& var, double eps, const Tensor& weight, const Tensor& bias,
                Tensor& out)
MILLRACE_KERNEL(batch_norm_activation_backward, UnaryOp activation, const Tensor& grad, const Tensor& x,
                const Tensor& mean, const Tensor& var, double eps, const Tensor& weight, const Tensor& bias,
                bool training, Tensor& grad_x, Tensor& grad_weight, Tensor& grad_bias)

// The same, without a residual, with a max pooling of 2x2 windows behind: x has an even height and width. For
// CPUs alone.
namespace cpu {
// `index`, u8, as of max_pool2d_forward.
void batch_norm_max_pool2d_apply(UnaryOp activation, const Tensor& x, const Tensor& mean, const Tensor& var,
                                 double eps, const Tensor& weight, const Tensor& bias, Tensor& out,
                                 Tensor& index);
// `grad`: of the pooling's result.
void batch_norm_max_pool2d_backward(UnaryOp activation, const Tensor& grad, const Tensor& index,
                                    const Tensor& x, const Tensor& mean, const Tensor& var, double eps,
                                    const Tensor& weight, const Tensor& bias, bool training, Tensor& grad_x,
                                    Tensor& grad_weight, Tensor& grad_bias);
}  // namespace cpu

}  // namespace millrace
