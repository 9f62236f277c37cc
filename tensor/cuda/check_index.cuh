#pragma once

#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/runtime/faults.h"

namespace millrace::cuda {

/// Whether `value` is in [0, size); if not, it is noted.
__device__ inline bool check_index(Fault* fault, Indexing operation, std::int64_t row, std::int64_t value,
                                   std::int64_t size) {
  if (value >= 0 && value < size) {
    return true;
  }
  if (atomicCAS(&fault->state, 0u, 1u) == 0u) {
    fault->operation = operation;
    fault->row = row;
    fault->value = value;
    fault->size = size;
    __threadfence_system();
    atomicExch(&fault->state, 2u);
  }
  return false;
}

}  // namespace millrace::cuda
