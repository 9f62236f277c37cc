#pragma once

#include <cstdint>

#include "tensor/kernels/kernel.h"

namespace millrace {

// Numbers of Philox: see base/philox.h.
MILLRACE_KERNEL(rand_uniform, std::uint64_t seed, std::uint64_t first_block, Tensor& out)
MILLRACE_KERNEL(rand_normal, std::uint64_t seed, std::uint64_t first_block, Tensor& out)
// out = x * mask / (1 - p), mask drawn from Philox keyed by `key` at each element's row-major place + first.
MILLRACE_KERNEL(dropout, const Tensor& x, double p, std::uint64_t key, std::uint64_t first, Tensor& out)

}  // namespace millrace
