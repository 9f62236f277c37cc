#pragma once

#include <cmath>
#include <random>
#include <vector>

#include "distributed/tree_sum.h"
#include "tensor/tensor.h"

namespace millrace {

/// What rank r holds at place i: numbers of very different size, so that the order of a sum shows in its
/// bits.
template <typename T>
T value_at(std::uint32_t seed, int rank, std::int64_t i) {
  std::minstd_rand random(seed + 7919u * static_cast<std::uint32_t>(rank) +
                          31u * static_cast<std::uint32_t>(i));
  random.discard(3);
  const double unit = static_cast<double>(random()) / std::minstd_rand::max() - 0.5;
  return static_cast<T>(unit * std::exp2(static_cast<double>(random() % 20)));
}

template <typename T>
Tensor make(std::uint32_t seed, int rank, std::int64_t count) {
  Tensor tensor = empty({count}, {.dtype = dtype_of<T>});
  for (std::int64_t i = 0; i < count; ++i) {
    tensor.data<T>()[i] = value_at<T>(seed, rank, i);
  }
  return tensor;
}

template <typename T>
T expected_sum(std::uint32_t seed, int ranks, std::int64_t i) {
  std::vector<T> addends;
  for (int r = 0; r < ranks; ++r) {
    addends.push_back(value_at<T>(seed, r, i));
  }
  return tree_sum(std::span<const T>(addends));
}

}  // namespace millrace
