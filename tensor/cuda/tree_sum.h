#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/device.h"
#include "tensor/dtype.h"

namespace millrace::cuda {

inline constexpr std::size_t kMostAddends = 256;

/// Sums `count` elements of each addend on the fixed binary tree, ((0 + 1) + (2 + 3)) + ..., and writes the
/// sum to every one of `outs`, which may be the addends themselves. f32 or f64, on the device of `stream`; at
/// most kMostAddends of each.
void tree_sum(std::span<const std::byte* const> addends, std::span<std::byte* const> outs, std::int64_t count,
              DType dtype, const Stream& stream);

}  // namespace millrace::cuda
