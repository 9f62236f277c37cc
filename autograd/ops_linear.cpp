#include "autograd/support.h"

namespace millrace {

using detail::saved_for;

namespace {

/// A factor of a product, which the kernel takes row-major or transposed.
Tensor as_factor(const Tensor& x) { return x.is_contiguous() || x.t().is_contiguous() ? x : x.contiguous(); }

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
}

}  // namespace

Variable linear(const Variable& x, const Variable& weight, const Variable& bias) {
  check_linear(x, weight, bias);
  const Tensor input = as_factor(x.data());
  const Tensor in_type = as_factor(weight.data().to(x.dtype()));
  Tensor out = empty({x.size(0), weight.size(0)}, {.dtype = x.dtype(), .device = x.device()});
  MILLRACE_LAUNCH(x.device(), matmul, input, in_type.t(), bias.defined() ? bias.data() : Tensor(), out);
  return record("linear", std::move(out), {x, weight, bias}, [&](const Tensor&) {
    return [x = saved_for(weight, input), weight = saved_for(x, weight.data()), in_type](
               const Tensor& gradient, InputGradients& inputs) {
      const Tensor none;
      const Tensor grad = as_factor(gradient);
      if (inputs.needed(0)) {
        weight.get("linear");
        Tensor grad_x = inputs.destination(0);
        MILLRACE_LAUNCH(gradient.device(), matmul, grad, in_type, none, grad_x);
        inputs.add(0, std::move(grad_x));
      }
      if (inputs.needed(1)) {
        Tensor grad_weight = inputs.destination(1);
        MILLRACE_LAUNCH(gradient.device(), matmul, grad.t(), x.get("linear"), none, grad_weight);
        inputs.add(1, std::move(grad_weight));
      }
      if (inputs.needed(2)) {
        detail::add_bias_gradient(inputs, 2, grad, {0});
      }
    };
  });
}

}  // namespace millrace
