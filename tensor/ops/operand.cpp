#include "tensor/ops/operand.h"

namespace millrace {

void check_operands(std::string_view operation, std::initializer_list<const Tensor*> operands) {
  const Tensor& first = **operands.begin();
  for (const Tensor* operand : operands) {
    if (!operand->defined()) {
      throw InputError("{}: got a tensor without a value", operation);
    }
    if (operand->device() != first.device()) {
      throw InputError("{}: got tensors on {} and {}, expected one device; move one with to()", operation,
                       first.device().to_string(), operand->device().to_string());
    }
  }
}

void check_writable(std::string_view name, const Tensor& tensor) {
  check_operands(name, {&tensor});
  for (int i = 0; i < tensor.dim(); ++i) {
    if (tensor.strides()[i] == 0 && tensor.shape()[i] > 1) {
      throw InputError("{}: cannot write into a tensor {} that was expanded; clone() it first", name,
                       tensor.shape());
    }
  }
}

void check_output(std::string_view name, const Shape& shape, DType dtype, Device device, const Tensor& out) {
  check_writable(name, out);
  if (out.shape() != shape || out.dtype() != dtype || out.device() != device) {
    throw InputError("{}: the result is {} {} on {}, but the output given is {} {} on {}", name, dtype, shape,
                     device.to_string(), out.dtype(), out.shape(), out.device().to_string());
  }
}

Tensor result_like(const Shape& shape, DType dtype, std::initializer_list<const Tensor*> operands) {
  const Device device = (*operands.begin())->device();
  for (const Tensor* operand : operands) {
    if (operand->shape() != shape) {
      continue;
    }
    if (operand->is_contiguous() || !operand->is_dense()) {
      break;
    }
    const std::size_t bytes = static_cast<std::size_t>(operand->numel()) * size_of(dtype);
    return Tensor(Storage::allocate(bytes, device), 0, shape, operand->strides(), dtype);
  }
  return empty(shape, {.dtype = dtype, .device = device});
}

namespace {

/// The addresses that a tensor's elements span.
struct Span {
  std::intptr_t first, last;
};

Span span_of(const Tensor& x) {
  const auto start = reinterpret_cast<std::intptr_t>(x.raw());
  const auto size = static_cast<std::intptr_t>(size_of(x.dtype()));
  Span span{start, start + size};
  for (int i = 0; i < x.dim(); ++i) {
    const std::intptr_t reach = x.strides()[i] * (x.shape()[i] - 1) * size;
    (reach < 0 ? span.first : span.last) += reach;
  }
  return span;
}

}  // namespace

bool disturbs(const Tensor& out, std::initializer_list<const Tensor*> operands, bool elementwise) {
  const Span written = span_of(out);
  for (const Tensor* x : operands) {
    const bool same_places = elementwise && x->raw() == out.raw() && x->dtype() == out.dtype() &&
                             x->shape() == out.shape() && x->strides() == out.strides();
    const Span read = span_of(*x);
    if (!same_places && x->numel() > 0 && read.first < written.last && written.first < read.last) {
      return true;
    }
  }
  return false;
}

void deliver(std::string_view operation, const Tensor& result, Tensor& out) {
  check_output(operation, result.shape(), result.dtype(), result.device(), out);
  out.copy_(result);
}

Axes reduced_axes(const Shape& shape, const std::vector<int>& dims, std::string_view operation) {
  Axes axes;
  for (int dim : dims) {
    bool& reduced = axes.reduced[wrap_dim(dim, shape.size(), operation)];
    if (reduced) {
      throw InputError("{}: dimension {} appears twice", operation, dim);
    }
    reduced = true;
  }
  for (int i = 0; i < shape.size(); ++i) {
    axes.reduced[i] |= dims.empty();
    axes.kept.push_back(axes.reduced[i] ? 1 : shape[i]);
    if (axes.reduced[i]) {
      axes.count *= shape[i];
    } else {
      axes.dropped.push_back(shape[i]);
    }
  }
  return axes;
}

}  // namespace millrace
