#include "tensor/tensor.h"

#include <algorithm>

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

}  // namespace millrace
