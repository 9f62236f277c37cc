#pragma once

#include "tensor/kernels/options.h"
#include "tensor/tensor.h"

/// Unpadded f32 convolutions with few channels (a network's first layers), where oneDNN spends its vectors on
/// channels that do not exist.
namespace millrace::cpu {

/// Whether the kernels below take this convolution and beat oneDNN's: at most 8 channels in and out.
bool direct_conv2d_is_faster(DType dtype, const Shape& weight, const Conv2dOptions& params);
void direct_conv2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           const Conv2dOptions& params, Tensor& out);
void direct_conv2d_backward_weight(const Tensor& x, const Tensor& grad, const Conv2dOptions& params,
                                   Tensor& grad_weight, Tensor& grad_bias);

/// The same for the input's gradient: at most 8 channels in, any number out, kernel width * channels in at
/// most 32.
bool direct_conv2d_data_is_faster(DType dtype, const Shape& weight, const Conv2dOptions& params);
void direct_conv2d_backward_data(const Tensor& grad, const Tensor& weight, const Conv2dOptions& params,
                                 Tensor& grad_x);

}  // namespace millrace::cpu
