#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/norm.h"

// Fused on the CPU; here the kernels that there are, one after the other: each rounds its results.
namespace millrace::cuda {

void batch_norm_activation_apply(UnaryOp activation, const Tensor& x, const Tensor& residual,
                                 const Tensor& mean, const Tensor& var, double eps, const Tensor& weight,
                                 const Tensor& bias, Tensor& out) {
  batch_norm_apply(x, mean, var, eps, weight, bias, out);
  if (residual.defined()) {
    binary(BinaryOp::add, out, residual, out);
  }
  unary(activation, out, out);
}

void batch_norm_activation_backward(UnaryOp activation, const Tensor& grad, const Tensor& x,
                                    const Tensor& mean, const Tensor& var, double eps, const Tensor& weight,
                                    const Tensor& bias, bool training, Tensor& grad_x, Tensor& grad_weight,
                                    Tensor& grad_bias) {
  Tensor z = empty_like(x);
  batch_norm_apply(x, mean, var, eps, weight, bias, z);
  unary_backward(activation, grad, z, Tensor(), z);
  batch_norm_backward(z, x, mean, var, eps, weight, training, grad_x, grad_weight, grad_bias);
}

}  // namespace millrace::cuda
