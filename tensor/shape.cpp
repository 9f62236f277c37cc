#include "tensor/shape.h"

#include <algorithm>
#include <iterator>

namespace millrace {

void Shape::insert(int position, std::int64_t value) {
  if (position < 0 || position > count_) {
    throw InputError("shape: cannot insert at {} into {}", position, to_string());
  }
  push_back(value);
  std::rotate(begin() + position, end() - 1, end());
}

void Shape::erase(int position) {
  if (position < 0 || position >= count_) {
    throw InputError("shape: cannot erase {} of {}", position, to_string());
  }
  std::copy(begin() + position + 1, end(), begin() + position);
  --count_;
}

bool Shape::operator==(const Shape& other) const {
  return std::equal(begin(), end(), other.begin(), other.end());
}

std::string Shape::to_string() const {
  std::string text = "[";
  for (int i = 0; i < count_; ++i) {
    fmt::format_to(std::back_inserter(text), "{}{}", i > 0 ? ", " : "", (*this)[i]);
  }
  return text + "]";
}

Shape broadcast_shapes(const Shape& a, const Shape& b, std::string_view operation) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape result = longer;
  for (int i = 1; i <= shorter.size(); ++i) {
    const std::int64_t size = shorter[-i];
    if (size == result[-i] || size == 1) {
      continue;
    }
    if (result[-i] != 1) {
      throw InputError("{}: shapes {} and {} do not broadcast: sizes {} and {} differ and neither is 1",
                       operation, a, b, a[-i], b[-i]);
    }
    result[-i] = size;
  }
  return result;
}

int wrap_dim(int dim, int dims, std::string_view operation) {
  if (dim < -dims || dim >= dims) {
    throw InputError("{}: got dimension {}, expected one of a tensor of {} dimensions", operation, dim, dims);
  }
  return dim < 0 ? dim + dims : dim;
}

}  // namespace millrace
