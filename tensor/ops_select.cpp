#include "tensor/kernels.h"
#include "tensor/operand.h"
#include "tensor/ops.h"

namespace millrace {

namespace {

void check_index(const char* name, const Tensor& index) {
  if (index.dtype() != DType::i64) {
    throw InputError("{}: got an index of type {}, expected i64", name, index.dtype());
  }
}

/// gather and scatter_add_: `index` has the dimensions of `x` and, but for `dim`, at most their sizes.
void check_index_shape(const char* name, const Tensor& x, int dim, const Tensor& index) {
  check_index(name, index);
  bool fits = index.dim() == x.dim();
  for (int i = 0; fits && i < x.dim(); ++i) {
    fits = i == dim || index.shape()[i] <= x.shape()[i];
  }
  if (!fits) {
    throw InputError("{}: index {} does not fit tensor {}: sizes but that of dimension {} may not be larger",
                     name, index.shape(), x.shape(), dim);
  }
}

}  // namespace

Tensor index_select(const Tensor& x, int dim, const Tensor& index) {
  check_operands("index_select", {&x, &index});
  check_index("index_select", index);
  if (index.dim() != 1) {
    throw InputError("index_select: got an index {}, expected one dimension", index.shape());
  }
  dim = wrap_dim(dim, x.dim(), "index_select");
  Shape shape = x.shape();
  shape[dim] = index.numel();
  const bool channels_last = !x.is_contiguous() && x.is_contiguous(MemoryFormat::channels_last);
  Tensor out =
      empty(shape, {.dtype = x.dtype(),
                    .device = x.device(),
                    .format = channels_last ? MemoryFormat::channels_last : MemoryFormat::row_major});
  MILLRACE_LAUNCH(x.device(), index_select, x, dim, index, out);
  return out;
}

Tensor gather(const Tensor& x, int dim, const Tensor& index) {
  check_operands("gather", {&x, &index});
  dim = wrap_dim(dim, x.dim(), "gather");
  check_index_shape("gather", x, dim, index);
  Tensor out = empty(index.shape(), {.dtype = x.dtype(), .device = x.device()});
  MILLRACE_LAUNCH(x.device(), gather, x, dim, index, out);
  return out;
}

void scatter_add_(Tensor& into, int dim, const Tensor& index, const Tensor& source) {
  check_operands("scatter_add_", {&into, &index, &source});
  check_writable("scatter_add_", into);
  dim = wrap_dim(dim, into.dim(), "scatter_add_");
  check_index_shape("scatter_add_", into, dim, index);
  if (source.shape() != index.shape() || source.dtype() != into.dtype()) {
    throw InputError("scatter_add_: got a source {} {}, expected {} {}, as the tensor and the index say",
                     source.dtype(), source.shape(), into.dtype(), index.shape());
  }
  MILLRACE_LAUNCH(into.device(), scatter_add, into, dim, index, source);
  into.storage()->bump_version();
}

Tensor cat(std::span<const Tensor> tensors, int dim) {
  if (tensors.empty()) {
    throw InputError("cat: got no tensors, expected one or more");
  }
  const Tensor& first = tensors[0];
  check_operands("cat", {&first});
  dim = wrap_dim(dim, first.dim(), "cat");
  Shape shape = first.shape();
  shape[dim] = 0;
  DType dtype = first.dtype();
  for (const Tensor& tensor : tensors) {
    check_operands("cat", {&first, &tensor});
    Shape expected = tensor.shape();
    if (expected.size() == shape.size()) {
      expected[dim] = first.shape()[dim];
    }
    if (expected != first.shape()) {
      throw InputError("cat: shapes {} and {} differ in more than dimension {}", first.shape(),
                       tensor.shape(), dim);
    }
    shape[dim] += tensor.shape()[dim];
    dtype = promote(dtype, tensor.dtype());
  }
  const bool channels_last = !first.is_contiguous() && first.is_contiguous(MemoryFormat::channels_last);
  Tensor out =
      empty(shape, {.dtype = dtype,
                    .device = first.device(),
                    .format = channels_last ? MemoryFormat::channels_last : MemoryFormat::row_major});
  std::int64_t start = 0;
  for (const Tensor& tensor : tensors) {
    Tensor part = out.narrow(dim, start, tensor.shape()[dim]);
    MILLRACE_LAUNCH(out.device(), copy, tensor, part);
    start += tensor.shape()[dim];
  }
  return out;
}

Tensor stack(std::span<const Tensor> tensors, int dim) {
  std::vector<Tensor> rows;
  for (const Tensor& tensor : tensors) {
    if (tensor.shape() != tensors[0].shape()) {
      throw InputError("stack: shapes {} and {} differ", tensors[0].shape(), tensor.shape());
    }
    rows.push_back(tensor.unsqueeze(dim));
  }
  if (rows.empty()) {
    throw InputError("stack: got no tensors, expected one or more");
  }
  return cat(rows, wrap_dim(dim, rows[0].dim(), "stack"));
}

}  // namespace millrace
