#pragma once

#include "tensor/kernels/options.h"
#include "tensor/tensor.h"

/// 3x3 convolutions with 4 products for each result of a channel, where direct ones take 9: F(2x2, 3x3) of
/// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308).
namespace millrace::cpu {

/// Whether `winograd_forward` takes this convolution, of which `out` is the result, and beats the others: f32
/// or, with AVX-512's extension, bf16. In f32 it is the answer for the weights' gradient too.
bool winograd_is_faster(DType dtype, const Shape& weight, const Conv2dOptions& params, const Shape& out);

/// `weight`, f32 [O, I, 3, 3], as `winograd_forward` reads it with images of `dtype`: [out, in] = [O, I], or
/// turned: [I, O] and each kernel by half a circle.
Tensor winograd_weights(const Tensor& weight, bool turned, DType dtype);
/// `x` and `out` are f32 or bf16, channels-last, `weight` is what `winograd_weights` gave, `bias` undefined
/// or f32 [out].
void winograd_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, Size2 padding, Tensor& out);
/// The same with a max pooling of 2x2 windows behind: `index` is u8, as of `max_pool2d_forward`.
void winograd_max_pool_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, Size2 padding,
                               Tensor& out, Tensor& index);
/// `winograd_forward` of the gradient of what such a pooling read; `grad` is that of its result.
void winograd_unpooled_forward(const Tensor& grad, const Tensor& index, const Tensor& weight, Size2 padding,
                               Tensor& out);
/// Where `index` is defined, `grad` is that of such a pooling. `x` and `grad` are f32; `grad_weight`, f32 [O,
/// I, 3, 3], and `grad_bias`, undefined or f32 [O], are overwritten.
void winograd_backward_weight(const Tensor& x, const Tensor& grad, const Tensor& index, Size2 padding,
                              Tensor& grad_weight, Tensor& grad_bias);

}  // namespace millrace::cpu
