#include "autograd/ops/support.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/matmul.h"
#include "tensor/kernels/reduce.h"
#include "tensor/ops/operand.h"

namespace millrace {

using detail::saved_for;

namespace {

/// Adds the dimension that a vector lacks as the left (`row`) or right factor of a matrix product.
Tensor as_matrix(const Tensor& x, bool row) { return x.dim() == 1 ? x.unsqueeze(row ? 0 : 1) : x; }

}  // namespace

Variable matmul(const Variable& a, const Variable& b) {
  return record("matmul", matmul(a.data(), b.data()), {a, b}, [&](const Tensor&) {
    return [shape_a = a.shape(), shape_b = b.shape(), a = saved_for(b, a.data()), b = saved_for(a, b.data())](
               const Tensor& gradient, InputGradients& inputs) {
      // A vector had its dimension added and dropped again; the gradient gets it back.
      Tensor product = gradient;
      if (shape_b.size() == 1) {
        product = product.unsqueeze(-1);
      }
      if (shape_a.size() == 1) {
        product = product.unsqueeze(-2);
      }
      if (inputs.needed(0)) {
        const Tensor right = as_matrix(b.get("matmul"), false);
        const Tensor grad_a = matmul(product, right.transpose(-1, -2));
        inputs.add(0, shape_a.size() == 1 ? sum_to(grad_a, {1, shape_a[0]}).reshape(shape_a)
                                          : sum_to(grad_a, shape_a));
      }
      if (inputs.needed(1)) {
        const Tensor left = as_matrix(a.get("matmul"), true);
        const Tensor grad_b = matmul(left.transpose(-1, -2), product);
        inputs.add(1, shape_b.size() == 1 ? sum_to(grad_b, {shape_b[0], 1}).reshape(shape_b)
                                          : sum_to(grad_b, shape_b));
      }
    };
  });
}

namespace {

void check_linear(const Variable& x, const Variable& weight, const Variable& bias) {
  if (x.dim() != 2 || weight.dim() != 2) {
    throw InputError("linear: expected input [n, in] and weight [out, in], got {} and {}; flatten() images",
                     x.shape(), weight.shape());
  }
  if (x.size(1) != weight.size(1)) {
    throw InputError("linear: input {} has {} features, weight {} expects {}", x.shape(), x.size(1),
                     weight.shape(), weight.size(1));
  }
  if (bias.defined() && bias.shape() != Shape{weight.size(0)}) {
    throw InputError("linear: bias {} does not fit weight {}, expected [{}]", bias.shape(), weight.shape(),
                     weight.size(0));
  }
  check_operands("linear", {&x.data(), &weight.data(), bias.defined() ? &bias.data() : &weight.data()});
  const bool half = (x.dtype() == DType::bf16 || x.dtype() == DType::f16) && weight.dtype() == DType::f32;
  if (!half && x.dtype() != weight.dtype()) {
    throw InputError("linear: got input {} and weight {}, expected one type, or bf16 or f16 and f32",
                     x.dtype(), weight.dtype());
  }
}

/// The bias got one gradient a row; summed into its place, in f32 at least.
void add_bias_gradient(InputGradients& inputs, int i, const Tensor& gradient) {
  Tensor grad_bias = inputs.destination(i);
  Tensor row = grad_bias.view({1, grad_bias.numel()});
  MILLRACE_LAUNCH(gradient.device(), reduce, ReduceOp::sum, gradient.to(grad_bias.dtype()), row);
  inputs.add(i, std::move(grad_bias));
}

}  // namespace

Variable linear(const Variable& x, const Variable& weight, const Variable& bias) {
  check_linear(x, weight, bias);
  const Tensor& input = x.data();
  const Tensor in_type = weight.data().to(x.dtype());
  Tensor out = empty({x.size(0), weight.size(0)}, {.dtype = x.dtype(), .device = x.device()});
  MILLRACE_LAUNCH(x.device(), matmul, input, in_type.t(), detail::dense_value(bias), out);
  const double operations = detail::operations_with(weight, out.numel());
  return record({"linear", operations}, std::move(out), {x, weight, bias}, [&](const Tensor&) {
    return [x = saved_for(weight, input), weight = saved_for(x, weight.data()), in_type](
               const Tensor& gradient, InputGradients& inputs) {
      const Tensor none;
      if (inputs.needed(0)) {
        weight.get("linear");
        Tensor grad_x = inputs.destination(0);
        MILLRACE_LAUNCH(gradient.device(), matmul, gradient, in_type, none, grad_x);
        inputs.add(0, std::move(grad_x));
      }
      if (inputs.needed(1)) {
        Tensor grad_weight = inputs.destination(1);
        MILLRACE_LAUNCH(gradient.device(), matmul, gradient.t(), x.get("linear"), none, grad_weight);
        inputs.add(1, std::move(grad_weight));
      }
      if (inputs.needed(2)) {
        add_bias_gradient(inputs, 2, gradient);
      }
    };
  });
}

}  // namespace millrace
