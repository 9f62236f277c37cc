#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace millrace {

/// How a range of n addends splits in two on the fixed binary tree: at the largest power of two below n, so
/// that five make ((0 + 1) + (2 + 3)) + 4, and every aligned power-of-two run is a subtree of its own.
constexpr std::size_t tree_split(std::size_t n) { return std::bit_floor(n - 1); }

/// Sums `values` on the fixed binary tree; 0 when there are none.
template <typename T>
T tree_sum(std::span<const T> values) {
  if (values.empty()) {
    return T{};
  }
  if (values.size() == 1) {
    return values.front();
  }
  const std::size_t half = tree_split(values.size());
  return tree_sum(values.first(half)) + tree_sum(values.subspan(half));
}

}  // namespace millrace
