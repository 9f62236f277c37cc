#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "tests/tensor/epsilon.h"

/// How far a GPU's results may lie from the CPU's, and why. Both compute the same, but add in orders of their
/// own, so each rounds at other places: a bound counts the roundings, of both devices together.
namespace millrace::test {

/// What `count` roundings to `dtype`, one behind the other, do to a result, relative to the numbers on the
/// way. Each errs by at most half an epsilon. A few may all go one way; of many the sum stays within four
/// standard deviations, beyond which none of thousands of results lies.
inline double rounded(DType dtype, double count) {
  return epsilon(dtype) / 2 * std::min(count, 4 * std::sqrt(count / 3));
}

/// What a result in `dtype` is computed in.
inline DType computed_in(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

/// Additions one behind the other in a sum of `terms`: each of `lanes` adds its share one by one, then the
/// lanes' sums are added in a tree.
inline std::int64_t chain(std::int64_t terms, std::int64_t lanes) {
  const auto used = static_cast<std::uint64_t>(std::clamp<std::int64_t>(terms, 1, lanes));
  return (terms + lanes - 1) / lanes + std::bit_width(used - 1);
}

/// A CPU sums products in the lanes of a vector. A thread of a GPU adds all of them one by one (where a
/// product is split, fewer), so that its sums err up to sqrt(16) times as much.
inline constexpr std::int64_t kCpuLanes = 16;
inline constexpr double kGpuErrorToCpus = 4;

/// Of sums of `terms` products. Tensor cores may cut factors to their type, which costs as much as two
/// roundings each; the result is rounded.
inline double product_bound(DType factors, std::int64_t terms) {
  return rounded(factors, 2 * 2 + 1) +
         rounded(DType::f32, static_cast<double>(terms + chain(terms, kCpuLanes)));
}

/// CUDA's functions err by up to four units in the last place, as its programming guide says, the CPU's by
/// one; a unit is two roundings.
inline constexpr int kFunction = 2 * (4 + 1);
/// What operations compute of each number beside sums: no more than two functions and, on each device, four
/// roundings of arithmetic.
inline constexpr int kPointwise = 2 * kFunction + 2 * 4;

/// Of what a step of training changes, the part that differs where all values are moved by a share: as large
/// a share of the gates of ReLU and max pooling opens otherwise, and each takes or adds a whole gradient, in
/// all directions.
inline double step_bound(double moved) { return std::sqrt(moved); }

/// What a pass through airbench94, the deepest of the networks that are compared, stores on the way: images,
/// and of nine layers weights, products, norms and activations.
inline constexpr int kStoredInAPass = 31;

}  // namespace millrace::test
