#include "tensor/kernels/matmul.h"

#include <algorithm>

#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/launch.h"
#include "tensor/ops.h"
#include "tensor/ops/operand.h"

namespace millrace {

namespace {

/// Batch dimensions, broadcast and folded into one.
Tensor batched(const Tensor& x, Shape batch) {
  batch.push_back(x.shape()[-2]);
  batch.push_back(x.shape()[-1]);
  return x.expand(batch).reshape({-1, x.shape()[-2], x.shape()[-1]});
}

/// The operands of a product, brought to one floating type and to two or three dimensions.
struct Product {
  Tensor left, right;
  Shape folded;  ///< The result's shape in as many dimensions.
  Shape shape;   ///< As the caller sees it.
  DType dtype;
};

Product product_of(const Tensor& a, const Tensor& b) {
  check_operands("matmul", {&a, &b});
  const DType dtype = promote(a.dtype(), b.dtype());
  const bool fits = a.dim() > 0 && b.dim() > 0 && a.shape()[-1] == b.shape()[b.dim() == 1 ? 0 : -2];
  if (!fits || !is_floating(dtype)) {
    throw InputError("matmul: got {} {} and {} {}, expected floating types and [..., m, k] times [..., k, n]",
                     a.dtype(), a.shape(), b.dtype(), b.shape());
  }
  // A vector is a matrix of one row (left) or column (right), and that dimension leaves the result again.
  const Tensor left = (a.dim() == 1 ? a.unsqueeze(0) : a).to(dtype);
  const Tensor right = (b.dim() == 1 ? b.unsqueeze(1) : b).to(dtype);
  const std::int64_t m = left.shape()[-2], k = left.shape()[-1], n = right.shape()[-1];
  const auto batch_of = [](const Tensor& x) {
    return Shape(std::span(x.shape().begin(), x.shape().end() - 2));
  };
  const Shape batch = broadcast_shapes(batch_of(left), batch_of(right), "matmul");
  Shape shape = batch;
  if (a.dim() > 1) {
    shape.push_back(m);
  }
  if (b.dim() > 1) {
    shape.push_back(n);
  }
  if (shape.numel() == 0 || k == 0) {
    return {left, right, shape, shape, dtype};
  }
  if (right.dim() == 2) {  // one matrix for all batches: fold them into rows
    return {left.reshape({-1, k}), right, {batch.numel() * m, n}, shape, dtype};
  }
  return {batched(left, batch), batched(right, batch), {batch.numel(), m, n}, shape, dtype};
}

/// Writes the product into `out`, a row-major tensor of its shape.
void run(const Product& product, Tensor& out) {
  if (out.numel() == 0 || product.left.size(-1) == 0) {
    MILLRACE_LAUNCH(out.device(), fill, out, 0);  // an empty sum
    return;
  }
  Tensor folded = out.view(product.folded);
  MILLRACE_LAUNCH(out.device(), matmul, product.left, product.right, Tensor(), folded);
}

Tensor multiply(const Tensor& a, const Tensor& b, Tensor* given) {
  const Product product = product_of(a, b);
  return produce({"matmul", product.shape, product.dtype, false}, {&a, &b}, given,
                 [&](Tensor& out) { run(product, out); });
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b) { return multiply(a, b, nullptr); }
void matmul(const Tensor& a, const Tensor& b, Tensor& out) {
  if (out.defined() && !out.is_contiguous()) {
    return deliver("matmul", matmul(a, b), out);
  }
  multiply(a, b, &out);
}

}  // namespace millrace
