#pragma once

#include "tensor/kernels.h"

/// Convolutions with few output channels (a network's first layers), where oneDNN spends its vectors on
/// channels that do not exist: eight channels at a time over f32 channels-last images.
namespace millrace::cpu {

/// Whether the kernels below take this convolution and beat oneDNN's.
bool direct_conv2d_is_faster(const Tensor& x, const Shape& weight, const Conv2dParams& params);

void direct_conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           const Conv2dParams& params, Tensor& out);
void direct_conv2d_backward_weight(const Tensor& x, const Tensor& grad, const Conv2dParams& params,
                                   Tensor& grad_weight, Tensor& grad_bias);

}  // namespace millrace::cpu
