#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/index.h"
#include "tensor/kernels/launch.h"
#include "tensor/ops.h"
#include "tensor/ops/operand.h"

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

MemoryFormat format_of(const Tensor& x) {
  const bool channels_last = !x.is_contiguous() && x.is_contiguous(MemoryFormat::channels_last);
  return channels_last ? MemoryFormat::channels_last : MemoryFormat::row_major;
}

Tensor select(const Tensor& x, int dim, const Tensor& index, Tensor* given) {
  check_operands("index_select", {&x, &index});
  check_index("index_select", index);
  if (index.dim() != 1) {
    throw InputError("index_select: got an index {}, expected one dimension", index.shape());
  }
  dim = wrap_dim(dim, x.dim(), "index_select");
  Shape shape = x.shape();
  shape[dim] = index.numel();
  return produce({"index_select", shape, x.dtype(), false, format_of(x)}, {&x, &index}, given,
                 [&](Tensor& out) { MILLRACE_LAUNCH(x.device(), index_select, x, dim, index, out); });
}

Tensor gathered(const Tensor& x, int dim, const Tensor& index, Tensor* given) {
  check_operands("gather", {&x, &index});
  dim = wrap_dim(dim, x.dim(), "gather");
  check_index_shape("gather", x, dim, index);
  return produce({"gather", index.shape(), x.dtype(), false}, {&x, &index}, given,
                 [&](Tensor& out) { MILLRACE_LAUNCH(x.device(), gather, x, dim, index, out); });
}

Tensor joined(const char* name, std::span<const Tensor> tensors, int dim, Tensor* given) {
  if (tensors.empty()) {
    throw InputError("{}: got no tensors, expected one or more", name);
  }
  const Tensor& first = tensors[0];
  check_operands(name, {&first});
  dim = wrap_dim(dim, first.dim(), name);
  Shape shape = first.shape();
  shape[dim] = 0;
  DType dtype = first.dtype();
  bool shares_memory = false;
  for (const Tensor& tensor : tensors) {
    check_operands(name, {&first, &tensor});
    Shape expected = tensor.shape();
    if (expected.size() == shape.size()) {
      expected[dim] = first.shape()[dim];
    }
    if (expected != first.shape()) {
      throw InputError("{}: shapes {} and {} differ in more than dimension {}", name, first.shape(),
                       tensor.shape(), dim);
    }
    shape[dim] += tensor.shape()[dim];
    dtype = promote(dtype, tensor.dtype());
    shares_memory |= given != nullptr && given->defined() && disturbs(*given, {&tensor}, false);
  }
  if (shares_memory) {
    deliver(name, joined(name, tensors, dim, nullptr), *given);
    return *given;
  }
  return produce({name, shape, dtype, false, format_of(first)}, {&first}, given, [&](Tensor& out) {
    std::int64_t start = 0;
    for (const Tensor& tensor : tensors) {
      Tensor part = out.narrow(dim, start, tensor.shape()[dim]);
      MILLRACE_LAUNCH(out.device(), copy, tensor, part);
      start += tensor.shape()[dim];
    }
  });
}

Tensor stacked(std::span<const Tensor> tensors, int dim, Tensor* given) {
  std::vector<Tensor> rows;
  for (const Tensor& tensor : tensors) {
    if (tensor.shape() != tensors[0].shape()) {
      throw InputError("stack: shapes {} and {} differ", tensors[0].shape(), tensor.shape());
    }
    rows.push_back(tensor.unsqueeze(dim));
  }
  return joined("stack", rows, rows.empty() ? 0 : wrap_dim(dim, rows[0].dim(), "stack"), given);
}

}  // namespace

Tensor index_select(const Tensor& x, int dim, const Tensor& index) { return select(x, dim, index, nullptr); }
void index_select(const Tensor& x, int dim, const Tensor& index, Tensor& out) { select(x, dim, index, &out); }
Tensor gather(const Tensor& x, int dim, const Tensor& index) { return gathered(x, dim, index, nullptr); }
void gather(const Tensor& x, int dim, const Tensor& index, Tensor& out) { gathered(x, dim, index, &out); }

void scatter_add_(Tensor& into, int dim, const Tensor& index, const Tensor& source) {
  check_operands("scatter_add_", {&into, &index, &source});
  check_writable("scatter_add_", into);
  dim = wrap_dim(dim, into.dim(), "scatter_add_");
  check_index_shape("scatter_add_", into, dim, index);
  if (source.shape() != index.shape() || source.dtype() != into.dtype()) {
    throw InputError("scatter_add_: got a source {} {}, expected {} {}, as the tensor and the index say",
                     source.dtype(), source.shape(), into.dtype(), index.shape());
  }
  if (disturbs(into, {&index, &source}, false)) {
    throw InputError(
        "scatter_add_: the tensor shares memory with the index or the source; clone() that first");
  }
  MILLRACE_LAUNCH(into.device(), scatter_add, into, dim, index, source);
  into.storage()->bump_version();
}

Tensor cat(std::span<const Tensor> tensors, int dim) { return joined("cat", tensors, dim, nullptr); }
void cat(std::span<const Tensor> tensors, int dim, Tensor& out) { joined("cat", tensors, dim, &out); }
Tensor stack(std::span<const Tensor> tensors, int dim) { return stacked(tensors, dim, nullptr); }
void stack(std::span<const Tensor> tensors, int dim, Tensor& out) { stacked(tensors, dim, &out); }

}  // namespace millrace
