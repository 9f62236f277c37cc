#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "tensor/tensor.h"

namespace millrace {

/// The loop nest over N operands of one shape: dimensions of size 1 are dropped, the rest ordered by the
/// strides of the first operand, innermost first, and merged where every operand allows it. Dense operands
/// become one loop.
template <std::size_t N>
class Nest {
 public:
  using Offsets = std::array<std::int64_t, N>;
  struct Dim {
    std::int64_t size = 1;
    Offsets strides{};
  };

  Nest(const Shape& shape, const std::array<const Strides*, N>& operands) {
    for (int i = 0; i < shape.size(); ++i) {
      if (shape[i] == 0) {
        empty_ = true;
      }
      if (shape[i] == 1) {
        continue;
      }
      Dim dim{shape[i], {}};
      for (std::size_t n = 0; n < N; ++n) {
        dim.strides[n] = (*operands[n])[i];
      }
      insert(dim);
    }
    merge();
  }

  bool empty() const { return empty_; }
  /// Size and strides (in elements) of the innermost loop.
  std::int64_t row() const { return dims_ > 0 ? nest_[0].size : 1; }
  const Offsets& row_strides() const { return nest_[0].strides; }
  bool is_flat() const { return dims_ <= 1; }
  /// The loops, innermost first.
  std::span<const Dim> dims() const { return {nest_.data(), static_cast<std::size_t>(dims_)}; }
  bool row_is_dense() const {
    return dims_ == 0 ||
           std::all_of(row_strides().begin(), row_strides().end(), [](auto stride) { return stride == 1; });
  }

  /// Calls `f(offsets)` for the start of each innermost loop.
  template <typename F>
  void for_each_row(F&& f) const {
    if (empty_) {
      return;
    }
    Offsets offsets{};
    std::array<std::int64_t, kMaxDims> index{};
    while (true) {
      f(static_cast<const Offsets&>(offsets));
      int d = 1;
      for (; d < dims_; ++d) {
        const Dim& dim = nest_[static_cast<std::size_t>(d)];
        for (std::size_t n = 0; n < N; ++n) {
          offsets[n] += dim.strides[n];
        }
        if (++index[static_cast<std::size_t>(d)] < dim.size) {
          break;
        }
        index[static_cast<std::size_t>(d)] = 0;
        for (std::size_t n = 0; n < N; ++n) {
          offsets[n] -= dim.strides[n] * dim.size;
        }
      }
      if (d >= dims_) {
        return;
      }
    }
  }

 private:
  void insert(const Dim& dim) {
    int place = dims_++;
    // Ascending by strides; among equals the later dimension is the inner one.
    for (; place > 0 && nest_[static_cast<std::size_t>(place - 1)].strides >= dim.strides; --place) {
      nest_[static_cast<std::size_t>(place)] = nest_[static_cast<std::size_t>(place - 1)];
    }
    nest_[static_cast<std::size_t>(place)] = dim;
  }

  void merge() {
    int kept = 0;
    for (int i = 1; i < dims_; ++i) {
      Dim& inner = nest_[static_cast<std::size_t>(kept)];
      const Dim& outer = nest_[static_cast<std::size_t>(i)];
      bool fits = true;
      for (std::size_t n = 0; n < N; ++n) {
        fits &= outer.strides[n] == inner.strides[n] * inner.size;
      }
      if (fits) {
        inner.size *= outer.size;
      } else {
        nest_[static_cast<std::size_t>(++kept)] = outer;
      }
    }
    dims_ = dims_ == 0 ? 0 : kept + 1;
  }

  std::array<Dim, kMaxDims> nest_{};
  int dims_ = 0;
  bool empty_ = false;
};

template <typename... Tensors>
Nest<sizeof...(Tensors)> nest_of(const Shape& shape, const Tensors&... tensors) {
  return Nest<sizeof...(Tensors)>(shape, {&tensors.strides()...});
}

}  // namespace millrace
