#include "tensor/kernels/reduce.h"

#include "tensor/kernels/launch.h"
#include "tensor/ops.h"
#include "tensor/ops/operand.h"

namespace millrace {

namespace {

bool is_half(DType dtype) { return dtype == DType::f16 || dtype == DType::bf16; }

Tensor reduce(ReduceOp op, const Tensor& x, const Axes& axes, DType dtype) {
  Tensor out = result_like(axes.kept, dtype, {&x});
  MILLRACE_LAUNCH(x.device(), reduce, op, x, out);
  return out;
}

Tensor shaped(const Tensor& reduced, const Axes& axes, const ReduceOptions& options) {
  return options.keep_dims ? reduced : reduced.view(axes.dropped);
}

Tensor extreme(ReduceOp op, const char* name, const Tensor& x, const ReduceOptions& options) {
  check_operands(name, {&x});
  const Axes axes = reduced_axes(x.shape(), options.dims, name);
  if (axes.count == 0) {
    throw InputError("{}: got a tensor {} without elements", name, x.shape());
  }
  return shaped(reduce(op, x, axes, x.dtype()), axes, options);
}

/// The mean with all dimensions kept, in f32 for the half types.
Tensor mean_of(const Tensor& x, const Axes& axes) {
  const DType dtype = x.dtype() == DType::f64 ? DType::f64 : DType::f32;
  Tensor out = reduce(ReduceOp::sum, x, axes, is_floating(x.dtype()) ? dtype : DType::i64).to(dtype);
  out.div_(static_cast<double>(axes.count));
  return out;
}

}  // namespace

Tensor sum(const Tensor& x, const ReduceOptions& options) {
  check_operands("sum", {&x});
  const Axes axes = reduced_axes(x.shape(), options.dims, "sum");
  return shaped(reduce(ReduceOp::sum, x, axes, is_floating(x.dtype()) ? x.dtype() : DType::i64), axes,
                options);
}

Tensor mean(const Tensor& x, const ReduceOptions& options) {
  check_operands("mean", {&x});
  const Axes axes = reduced_axes(x.shape(), options.dims, "mean");
  const Tensor out = mean_of(x, axes);
  return shaped(is_half(x.dtype()) ? out.to(x.dtype()) : out, axes, options);
}

Tensor max(const Tensor& x, const ReduceOptions& options) {
  return extreme(ReduceOp::max, "max", x, options);
}
Tensor min(const Tensor& x, const ReduceOptions& options) {
  return extreme(ReduceOp::min, "min", x, options);
}

Tensor var(const Tensor& x, const ReduceOptions& options, int correction) {
  check_operands("var", {&x});
  const Axes axes = reduced_axes(x.shape(), options.dims, "var");
  const Tensor center = mean_of(x, axes);
  Tensor distance = sub(x, center);  // f32 or f64, as the mean
  distance.mul_(distance);
  Tensor out = reduce(ReduceOp::sum, distance, axes, center.dtype());
  out.div_(static_cast<double>(std::max<std::int64_t>(axes.count - correction, 0)));
  return shaped(is_half(x.dtype()) ? out.to(x.dtype()) : out, axes, options);
}

Tensor argmax(const Tensor& x, int dim, bool keep_dims) {
  check_operands("argmax", {&x});
  dim = wrap_dim(dim, x.dim(), "argmax");
  if (x.shape()[dim] == 0) {
    throw InputError("argmax: dimension {} of {} has no elements", dim, x.shape());
  }
  Shape shape = x.shape();
  shape[dim] = 1;
  Tensor out = empty(shape, {.dtype = DType::i64, .device = x.device()});
  MILLRACE_LAUNCH(x.device(), argmax, x, dim, out);
  return keep_dims ? out : out.squeeze(dim);
}

Tensor argmax(const Tensor& x) { return argmax(x.reshape({-1}), 0); }

// A reduction is small: it is made, then copied.
void sum(const Tensor& x, const ReduceOptions& options, Tensor& out) { deliver("sum", sum(x, options), out); }
void mean(const Tensor& x, const ReduceOptions& options, Tensor& out) {
  deliver("mean", mean(x, options), out);
}
void max(const Tensor& x, const ReduceOptions& options, Tensor& out) { deliver("max", max(x, options), out); }
void min(const Tensor& x, const ReduceOptions& options, Tensor& out) { deliver("min", min(x, options), out); }
void var(const Tensor& x, const ReduceOptions& options, int correction, Tensor& out) {
  deliver("var", var(x, options, correction), out);
}
void argmax(const Tensor& x, int dim, bool keep_dims, Tensor& out) {
  deliver("argmax", argmax(x, dim, keep_dims), out);
}
void argmax(const Tensor& x, Tensor& out) { deliver("argmax", argmax(x), out); }

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) {
    return x;
  }
  check_operands("sum_to", {&x});
  const int added = x.dim() - shape.size();
  Axes axes;
  for (int i = 0; i < x.dim(); ++i) {
    const std::int64_t size = i < added ? 1 : shape[i - added];
    if (added < 0 || (size != x.shape()[i] && size != 1)) {
      throw InputError("sum_to: shape {} does not broadcast to {}", shape, x.shape());
    }
    axes.kept.push_back(size);
  }
  if (added < 0) {
    throw InputError("sum_to: shape {} does not broadcast to {}", shape, x.shape());
  }
  return reduce(ReduceOp::sum, x, axes, is_floating(x.dtype()) ? x.dtype() : DType::i64).view(shape);
}

}  // namespace millrace
