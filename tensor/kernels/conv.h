#pragma once

#include "tensor/kernels/kernel.h"
#include "tensor/kernels/options.h"

namespace millrace {

// Convolution, f32 and bf16 activations with f32 weights [O, I / groups, H, W]; `bias` and `grad_bias` may be
// undefined.
MILLRACE_KERNEL(conv2d_forward, const Tensor& x, const Tensor& weight, const Tensor& bias,
                const Conv2dOptions& params, Tensor& out)
MILLRACE_KERNEL(conv2d_backward_data, const Tensor& grad, const Tensor& weight, const Conv2dOptions& params,
                Tensor& grad_x)
MILLRACE_KERNEL(conv2d_backward_weight, const Tensor& x, const Tensor& grad, const Conv2dOptions& params,
                Tensor& grad_weight, Tensor& grad_bias)

// A convolution and a max pooling of 2x2 windows behind it in one pass: what is pooled is not written, its
// gradient is made an image at a time. For CPUs alone, and those convolutions of which `conv2d_pools` says
// that it is faster.
namespace cpu {
bool conv2d_pools(DType dtype, const Shape& x, const Shape& weight, bool biased, const Conv2dOptions& params,
                  const Shape& pooled);
// `index`, u8, as of max_pool2d_forward.
void conv2d_max_pool2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const Conv2dOptions& params, Tensor& out, Tensor& index);
// `grad`: of the pooling's result.
void conv2d_max_pool2d_backward_data(const Tensor& grad, const Tensor& index, const Tensor& weight,
                                     const Conv2dOptions& params, Tensor& grad_x);
void conv2d_max_pool2d_backward_weight(const Tensor& x, const Tensor& grad, const Tensor& index,
                                       const Conv2dOptions& params, Tensor& grad_weight, Tensor& grad_bias);
}  // namespace cpu

}  // namespace millrace
