#pragma once

#include <cmath>
#include <cstdint>

#include "tests/tensor/sample.h"

/// How far a GPU's results may lie from the CPU's, and why: both sum in f32, each in its own order.
///
/// Each addition of a running sum rounds by at most half an epsilon, up or down at random, so n of them err
/// by about sqrt(n) / 2 epsilons. A CPU has 16 running sums, the lanes of a vector, of n / 16 terms each; a
/// thread of a GPU adds all n terms one by one (where a product is split, fewer). So its sums err up to
/// sqrt(16) times as much. Both round factors and results to the type, each by at most half an epsilon.
namespace millrace::test {

inline constexpr double kGpuErrorToCpus = 4;

/// Of a sum of `terms` products in `dtype`, relative to the largest result: four standard deviations, beyond
/// which none of thousands of results lies.
inline double sum_bound(DType dtype, std::int64_t terms) {
  return 4 * (epsilon(dtype) + epsilon(DType::f32) * std::sqrt(static_cast<double>(terms)) / 2);
}

}  // namespace millrace::test
