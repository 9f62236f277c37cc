#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

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

/// Elements summed at a time: all ranks' pieces and the partial sums of the tree stay in the first-level
/// cache.
inline constexpr std::int64_t kBlock = 1024;

/// Sums the same block of ranks [low, low + addends) on the tree. Returns where the sum is: the block itself
/// for one rank, else in `scratch`, which has kBlock elements for each level of the tree.
template <typename T>
const T* sum_block(const T* const* blocks, std::size_t addends, std::int64_t count, T* scratch) {
  if (addends == 1) {
    return blocks[0];
  }
  const std::size_t half = tree_split(addends);
  const T* left = sum_block(blocks, half, count, scratch);
  const T* right = sum_block(blocks + half, addends - half, count, scratch + kBlock);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    scratch[i] = left[i] + right[i];
  }
  return scratch;
}

/// Elements [begin, end) of `count` that rank r of n sums; cut at cache lines.
inline std::pair<std::int64_t, std::int64_t> part_of(std::int64_t count, int r, int n) {
  constexpr std::int64_t kLine = 16;
  const std::int64_t part = (count + n * kLine - 1) / (n * kLine) * kLine;
  return {std::min(count, r * part), std::min(count, (r + 1) * part)};
}

}  // namespace millrace
