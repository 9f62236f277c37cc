#include <algorithm>
#include <array>
#include <optional>

#include "tensor/tensor.h"

namespace millrace {

namespace {

/// Replaces one -1 in `shape` by the size that gives `numel` elements.
Shape infer_size(Shape shape, const Shape& from, std::int64_t numel, const char* operation) {
  int unknown = -1;
  std::int64_t known = 1;
  for (int i = 0; i < shape.size(); ++i) {
    if (shape[i] >= 0) {
      known *= shape[i];
    } else if (shape[i] == -1 && unknown < 0) {
      unknown = i;
    } else {
      throw InputError("{}: got shape {}, expected sizes of 0 or more and at most one -1", operation, shape);
    }
  }
  if (unknown >= 0 && known > 0 && numel % known == 0) {
    shape[unknown] = numel / known;
    known = numel;
  } else if (unknown >= 0) {
    throw InputError("{}: shape {} does not fit the {} elements of {}", operation, shape, numel, from);
  }
  if (known != numel) {
    throw InputError("{}: shape {} has {} elements, {} has {}", operation, shape, known, from, numel);
  }
  return shape;
}

/// Strides under which the memory of (`shape`, `strides`) reads as `target`, if there are any.
std::optional<Strides> view_strides(const Shape& shape, const Strides& strides, const Shape& target) {
  if (shape.numel() == 0) {
    return dense_strides(target);
  }
  Strides result = target;
  int t = target.size() - 1;
  int s = shape.size() - 1;
  // Runs of the source that step through memory evenly are split into target sizes, innermost first.
  while (s >= 0) {
    std::int64_t base = strides[s];
    std::int64_t run = shape[s];
    while (s > 0 && (shape[s - 1] == 1 || run == 1 || strides[s - 1] == base * run)) {
      if (run == 1 && shape[s - 1] != 1) {
        base = strides[s - 1];
      }
      run *= shape[--s];
    }
    std::int64_t taken = 1;
    while (t >= 0 && (taken < run || target[t] == 1)) {
      result[t] = base * taken;
      taken *= target[t--];
    }
    if (taken != run) {
      return std::nullopt;
    }
    --s;
  }
  for (; t >= 0; --t) {
    result[t] = 1;
  }  // a scalar seen as ones
  return result;
}

}  // namespace

Tensor Tensor::view(Shape shape) const {
  shape = infer_size(shape, shape_, numel_, "view");
  const std::optional<Strides> strides = view_strides(shape_, strides_, shape);
  if (!strides) {
    throw InputError("view: a tensor {} with strides {} cannot be seen as {} without a copy; use reshape",
                     shape_, strides_, shape);
  }
  return Tensor(storage_, offset_, shape, *strides, dtype_);
}

Tensor Tensor::reshape(Shape shape) const {
  shape = infer_size(shape, shape_, numel_, "reshape");
  const std::optional<Strides> strides = view_strides(shape_, strides_, shape);
  if (strides) {
    return Tensor(storage_, offset_, shape, *strides, dtype_);
  }
  return Tensor(contiguous().storage(), 0, shape, dense_strides(shape), dtype_);
}

Tensor Tensor::permute(std::initializer_list<int> dims) const {
  return permute(std::span(dims.begin(), dims.size()));
}

Tensor Tensor::permute(std::span<const int> dims) const {
  if (static_cast<int>(dims.size()) != dim()) {
    throw InputError("permute: got {} dimensions, expected {} for shape {}", dims.size(), dim(), shape_);
  }
  Tensor out = *this;
  std::array<bool, kMaxDims> seen{};
  for (int i = 0; i < dim(); ++i) {
    const int from = wrap_dim(dims[static_cast<std::size_t>(i)], dim(), "permute");
    if (seen[static_cast<std::size_t>(from)]) {
      throw InputError("permute: dimension {} appears twice", from);
    }
    seen[static_cast<std::size_t>(from)] = true;
    out.shape_[i] = shape_[from];
    out.strides_[i] = strides_[from];
  }
  return out;
}

Tensor Tensor::transpose(int a, int b) const {
  a = wrap_dim(a, dim(), "transpose");
  b = wrap_dim(b, dim(), "transpose");
  Tensor out = *this;
  std::swap(out.shape_[a], out.shape_[b]);
  std::swap(out.strides_[a], out.strides_[b]);
  return out;
}

Tensor Tensor::t() const {
  if (dim() != 2) {
    throw InputError("t: got shape {}, expected two dimensions", shape_);
  }
  return transpose(0, 1);
}

Tensor& Tensor::t_() { return *this = t(); }

Tensor Tensor::slice(int dim, std::int64_t start, std::int64_t end, std::int64_t step) const {
  dim = wrap_dim(dim, shape_.size(), "slice");
  if (step < 1) {
    throw InputError("slice: got step {}, expected 1 or more", step);
  }
  const std::int64_t size = shape_[dim];
  const auto clip = [size](std::int64_t i) {
    return std::clamp<std::int64_t>(i < 0 ? i + size : i, 0, size);
  };
  start = clip(start);
  end = std::max(start, clip(end));
  Tensor out = *this;
  out.shape_[dim] = (end - start + step - 1) / step;
  out.strides_[dim] = strides_[dim] * step;
  out.offset_ += start * strides_[dim];
  out.numel_ = out.shape_.numel();
  return out;
}

Tensor Tensor::narrow(int dim, std::int64_t start, std::int64_t length) const {
  dim = wrap_dim(dim, shape_.size(), "narrow");
  if (start < 0 || length < 0 || start > shape_[dim] - length) {
    throw InputError("narrow: {} elements from {} do not lie within dimension {} of {}", length, start, dim,
                     shape_);
  }
  Tensor out = *this;
  out.shape_[dim] = length;
  out.offset_ += start * strides_[dim];
  out.numel_ = out.shape_.numel();
  return out;
}

Tensor Tensor::select(int dim, std::int64_t index) const {
  dim = wrap_dim(dim, shape_.size(), "select");
  const std::int64_t size = shape_[dim];
  if (index < -size || index >= size) {
    throw InputError("select: index {} is outside of dimension {} of {}", index, dim, shape_);
  }
  Tensor out = *this;
  out.offset_ += (index < 0 ? index + size : index) * strides_[dim];
  out.shape_.erase(dim);
  out.strides_.erase(dim);
  out.numel_ = out.shape_.numel();
  return out;
}

Tensor Tensor::unsqueeze(int dim) const {
  const int place = wrap_dim(dim, shape_.size() + 1, "unsqueeze");
  Tensor out = *this;
  out.strides_.insert(place, place < shape_.size() ? shape_[place] * strides_[place] : 1);
  out.shape_.insert(place, 1);
  return out;
}

Tensor Tensor::squeeze() const {
  Tensor out = *this;
  for (int i = dim() - 1; i >= 0; --i) {
    if (shape_[i] == 1) {
      out.shape_.erase(i);
      out.strides_.erase(i);
    }
  }
  return out;
}

Tensor Tensor::squeeze(int dim) const {
  dim = wrap_dim(dim, shape_.size(), "squeeze");
  Tensor out = *this;
  if (shape_[dim] == 1) {
    out.shape_.erase(dim);
    out.strides_.erase(dim);
  }
  return out;
}

Tensor Tensor::expand(const Shape& target) const {
  const int added = target.size() - dim();
  if (added < 0) {
    throw InputError("expand: shape {} cannot be expanded to {}: dimensions are missing", shape_, target);
  }
  Shape shape = target, strides = target;
  for (int i = 0; i < shape.size(); ++i) {
    const std::int64_t size = i < added ? 1 : shape_[i - added];
    shape[i] = target[i] == -1 && i >= added ? size : target[i];
    if (shape[i] < 0 || (shape[i] != size && size != 1)) {
      throw InputError("expand: shape {} cannot be expanded to {}: only sizes of 1 grow", shape_, target);
    }
    strides[i] = i < added || shape[i] != size ? 0 : strides_[i - added];
  }
  return Tensor(storage_, offset_, shape, strides, dtype_);
}

Tensor Tensor::with_own_version() const {
  const auto element = static_cast<std::int64_t>(size_of(dtype_));
  std::int64_t last = 0;
  for (int i = 0; i < dim(); ++i) {
    last += (shape_[i] - 1) * strides_[i];
  }
  const std::int64_t count = numel_ == 0 ? 0 : last + 1;
  auto part = Storage::part_of(storage_, static_cast<std::size_t>(offset_ * element),
                               static_cast<std::size_t>(count * element));
  return Tensor(std::move(part), 0, shape_, strides_, dtype_);
}

}  // namespace millrace
