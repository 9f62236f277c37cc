#include "distributed/operation.h"

#include "base/error.h"

namespace millrace {

void check_dense(const Tensor& tensor, Device::Kind kind, Operation operation) {
  const bool right_device = tensor.device().kind == kind;
  if (!tensor.defined() || !tensor.is_dense() || !right_device) {
    throw InputError("{}: got {}, expected a dense {} tensor", name_of(operation),
                     !tensor.defined() ? "an undefined tensor"
                     : right_device ? fmt::format("strides {} for shape {}", tensor.strides(), tensor.shape())
                                    : "a tensor on " + tensor.device().to_string(),
                     kind == Device::Kind::cpu ? "CPU" : "CUDA");
  }
}

void check_addends(const Tensor& tensor, Device::Kind kind, Operation operation) {
  check_dense(tensor, kind, operation);
  if (tensor.dtype() != DType::f32 && tensor.dtype() != DType::f64) {
    throw InputError("{}: got {}, expected f32 or f64", name_of(operation), tensor.dtype());
  }
}

void check_parts(const Tensor& whole, const Tensor& part, int size, Device::Kind kind, Operation operation) {
  check_dense(whole, kind, operation);
  check_dense(part, kind, operation);
  if (whole.dtype() != part.dtype() || whole.numel() != part.numel() * size) {
    throw InputError("{}: got {} {} and {} {}, expected one type and {} equal parts", name_of(operation),
                     whole.dtype(), whole.shape(), part.dtype(), part.shape(), size);
  }
}

void check_root(int root, int size) {
  if (root < 0 || root >= size) {
    throw InputError("broadcast: got root {}, expected a rank of this group, 0 to {}", root, size - 1);
  }
}

}  // namespace millrace
