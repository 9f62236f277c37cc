#include "tensor/tensor.h"

#include <algorithm>
#include <array>

#include "tensor/device_memory.h"
#include "tensor/kernels.h"
#include "tensor/operand.h"
#include "tensor/tape.h"

namespace millrace {

Tensor::Tensor(std::shared_ptr<Storage> storage, std::int64_t offset, Shape shape, Strides strides,
               DType dtype)
    : storage_(std::move(storage)),
      offset_(offset),
      numel_(shape.numel()),
      shape_(shape),
      strides_(strides),
      dtype_(dtype) {}

void Tensor::throw_wrong_type(DType asked) const {
  throw InputError("data: asked for {} elements of a tensor {} of type {}; convert it with to(DType::{})",
                   asked, shape_, dtype_, asked);
}

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

bool Tensor::is_contiguous(MemoryFormat format) const {
  const Shape& s = shape_;
  if (numel_ == 0) {
    return true;
  }
  std::int64_t expected = 1;
  const auto matches = [&](int i) {
    const bool ok = s[i] == 1 || strides_[i] == expected;
    expected *= s[i];
    return ok;
  };
  const bool channels_last = format == MemoryFormat::channels_last && s.size() >= 3;
  if (channels_last && !matches(1)) {
    return false;
  }
  for (int i = s.size() - 1; i >= 0; --i) {
    if (channels_last && i == 1) {
      continue;
    }
    if (!matches(i)) {
      return false;
    }
  }
  return true;
}

bool Tensor::is_dense() const {
  if (is_contiguous()) {
    return true;
  }
  // Each step finds the dimension that starts where the last one ended.
  std::int64_t filled = 1;
  while (filled < numel_) {
    int next = 0;
    while (next < dim() && (strides_[next] != filled || shape_[next] == 1)) {
      ++next;
    }
    if (next == dim()) {
      return false;
    }
    filled *= shape_[next];
  }
  return true;
}

Strides dense_strides(const Shape& shape, MemoryFormat format) {
  Strides strides = shape;
  std::uint64_t stride = 1;  // an empty tensor's other sizes may be huge: wraps, and is never used
  const bool channels_last = format == MemoryFormat::channels_last && shape.size() >= 3;
  const auto place = [&](int i) {
    strides[i] = static_cast<std::int64_t>(stride);
    stride *= static_cast<std::uint64_t>(std::max<std::int64_t>(shape[i], 1));
  };
  if (channels_last) {
    place(1);
  }
  for (int i = shape.size() - 1; i >= 0; --i) {
    if (!channels_last || i != 1) {
      place(i);
    }
  }
  return strides;
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
