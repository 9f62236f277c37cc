#include <algorithm>

#include "tensor/kernels.h"
#include "tensor/operand.h"
#include "tensor/ops.h"

namespace millrace {

namespace {

/// Two or three dimensions, of one floating type, none of them empty.
Tensor product(const Tensor& a, const Tensor& b, const Shape& shape) {
  Tensor out = empty(shape, {.dtype = a.dtype(), .device = a.device()});
  MILLRACE_LAUNCH(a.device(), matmul, a, b, Tensor(), out);
  return out;
}

/// Batch dimensions, broadcast and folded into one.
Tensor batched(const Tensor& x, Shape batch) {
  batch.push_back(x.shape()[-2]);
  batch.push_back(x.shape()[-1]);
  return x.expand(batch).reshape({-1, x.shape()[-2], x.shape()[-1]});
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b) {
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
    return zeros(shape, {.dtype = dtype, .device = a.device()});
  }
  if (right.dim() == 2) {  // one matrix for all batches: fold them into rows
    return product(left.reshape({-1, k}), right, {batch.numel() * m, n}).view(shape);
  }
  return product(batched(left, batch), batched(right, batch), {batch.numel(), m, n}).view(shape);
}

}  // namespace millrace
