#pragma once

#include "tensor/kernels/options.h"
#include "tensor/tensor.h"

/// The weights' gradient of convolutions with many channels, at nine tenths of a core's peak; oneDNN 2.6
/// reaches two thirds of it.
namespace millrace::cpu {

/// Whether the kernel below takes this convolution, of which `out` is the result, and beats oneDNN's: AVX-512
/// (in bf16 its extension for bf16, and no AMX, which oneDNN uses), one group, from 24 channels to 64 or
/// another multiple of 16 above.
bool channel_tiles_are_faster(DType dtype, const Shape& weight, const Conv2dOptions& params,
                              const Shape& out);
/// `grad_weight` is f32 [O, I, h, w], overwritten. Where `index` is defined, which takes bf16, `grad` is that
/// of a max pooling behind (see `winograd_max_pool_forward`).
void channel_tiles_backward_weight(const Tensor& x, const Tensor& grad, const Tensor& index,
                                   const Conv2dOptions& params, Tensor& grad_weight);

}  // namespace millrace::cpu
