#include "tensor/config.h"
#include "tensor/device_memory.h"
#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/recording.h"
#include "tensor/ops/operand.h"
#include "tensor/tensor.h"

namespace millrace {

namespace {

double read_element(const Tensor& tensor, std::int64_t offset) {
  refuse_recording("it reads elements on the host");
  if (!tensor.device().is_cpu()) {
    const Tensor one(tensor.storage(), tensor.offset() + offset, {}, {}, tensor.dtype());
    return read_element(one.to(kCpu), 0);
  }
  return visit(tensor.dtype(), [&]<typename T>() { return static_cast<double>(tensor.data<T>()[offset]); });
}

std::int64_t element_offset(const Tensor& tensor, std::initializer_list<std::int64_t> index,
                            const char* operation) {
  const Shape place(index);
  if (place.size() != tensor.dim()) {
    throw InputError("{}: got {} indices, expected {} for shape {}", operation, place.size(), tensor.dim(),
                     tensor.shape());
  }
  std::int64_t offset = 0;
  for (int i = 0; i < place.size(); ++i) {
    if (place[i] < 0 || place[i] >= tensor.shape()[i]) {
      throw InputError("{}: index {} is outside of shape {}", operation, place, tensor.shape());
    }
    offset += place[i] * tensor.strides()[i];
  }
  return offset;
}

}  // namespace

double Tensor::item() const {
  if (numel_ != 1 || !defined()) {
    throw InputError("item: got a tensor of shape {} with {} elements, expected one", shape_,
                     defined() ? numel_ : 0);
  }
  return read_element(*this, 0);
}

double Tensor::at(std::initializer_list<std::int64_t> index) const {
  return read_element(*this, element_offset(*this, index, "at"));
}

void Tensor::set(std::initializer_list<std::int64_t> index, double value) {
  Tensor one(storage_, offset_ + element_offset(*this, index, "set"), {}, {}, dtype_);
  one.fill_(value);
}

Tensor Tensor::contiguous(MemoryFormat format) const {
  if (is_contiguous(format)) {
    return *this;
  }
  Tensor out = empty(shape_, {.dtype = dtype_, .device = device(), .format = format});
  MILLRACE_LAUNCH(device(), copy, *this, out);
  return out;
}

Tensor Tensor::clone() const {
  check_operands("clone", {this});
  Tensor out = empty_like(*this);
  MILLRACE_LAUNCH(device(), copy, *this, out);
  return out;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) {
    return *this;
  }
  check_operands("to", {this});
  Tensor out = is_contiguous() || !is_dense()
                   ? empty(shape_, {.dtype = dtype, .device = device()})
                   : Tensor(Storage::allocate(static_cast<std::size_t>(numel_) * size_of(dtype), device()), 0,
                            shape_, strides_, dtype);
  MILLRACE_LAUNCH(device(), copy, *this, out);
  return out;
}

Tensor Tensor::to(Device target) const {
  if (target == device()) {
    return *this;
  }
  const Tensor dense = is_dense() ? *this : contiguous();
  Tensor out(Storage::allocate(static_cast<std::size_t>(numel_) * size_of(dtype_), target), 0, shape_,
             dense.strides_, dtype_);
  if constexpr (kWithCuda) {
    cuda::copy_across(dense, out);
  }
  return out;
}

Tensor& Tensor::copy_(const Tensor& source) {
  check_writable("copy_", *this);
  check_operands("copy_", {&source});
  Tensor same_shape = source.shape() == shape_ ? source : source.expand(shape_);
  if (source.device() == device()) {
    if (disturbs(*this, {&same_shape}, true)) {
      same_shape = same_shape.clone();
    }
    MILLRACE_LAUNCH(device(), copy, same_shape, *this);
  } else if constexpr (kWithCuda) {
    const Tensor converted = same_shape.to(dtype_);
    if (is_dense() && converted.strides_ == strides_) {
      cuda::copy_across(converted, *this);
    } else {
      const Tensor here = converted.to(device());
      MILLRACE_LAUNCH(device(), copy, here, *this);
    }
  }
  storage_->bump_version();
  return *this;
}

}  // namespace millrace
