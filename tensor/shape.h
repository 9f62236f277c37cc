#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <span>
#include <string>

#include "base/error.h"

namespace millrace {

inline constexpr int kMaxDims = 8;

/// Up to eight integers, held in place: the sizes of a tensor, or its strides (in elements).
class Shape {
 public:
  using value_type = std::int64_t;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) : Shape(std::span(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const std::int64_t> sizes) {
    for (std::int64_t size : sizes) {
      push_back(size);
    }
  }

  int size() const { return count_; }
  bool empty() const { return count_ == 0; }
  /// Negative indices count from the end.
  std::int64_t operator[](int i) const { return values_[static_cast<std::size_t>(i < 0 ? i + count_ : i)]; }
  std::int64_t& operator[](int i) { return values_[static_cast<std::size_t>(i < 0 ? i + count_ : i)]; }
  const std::int64_t* begin() const { return values_.data(); }
  const std::int64_t* end() const { return values_.data() + count_; }
  std::int64_t* begin() { return values_.data(); }
  std::int64_t* end() { return values_.data() + count_; }

  void push_back(std::int64_t value) {
    if (count_ == kMaxDims) {
      throw InputError("shape: got more than {} dimensions", kMaxDims);
    }
    values_[static_cast<std::size_t>(count_++)] = value;
  }
  void insert(int position, std::int64_t value);
  void erase(int position);

  /// The product of all sizes; 1 for the empty shape of a scalar.
  std::int64_t numel() const {
    std::int64_t product = 1;
    for (std::int64_t size : *this) {
      product *= size;
    }
    return product;
  }

  bool operator==(const Shape& other) const;
  /// "[32, 3, 8, 8]"
  std::string to_string() const;

 private:
  std::array<std::int64_t, kMaxDims> values_{};
  int count_ = 0;
};

using Strides = Shape;

std::ostream& operator<<(std::ostream& out, const Shape& shape);

/// The shape that `a` and `b` broadcast to. @throws InputError naming `operation` and both shapes.
Shape broadcast_shapes(const Shape& a, const Shape& b, std::string_view operation);

/// Wraps a negative dimension. @throws InputError when it is out of range.
int wrap_dim(int dim, int dims, std::string_view operation);

}  // namespace millrace

template <>
struct fmt::formatter<millrace::Shape> : fmt::formatter<std::string_view> {
  template <typename Context>
  auto format(const millrace::Shape& shape, Context& context) const {
    return fmt::format_to(context.out(), "{}",
                          shape.to_string());  // format() is defined in fmt/format.h only
  }
};
