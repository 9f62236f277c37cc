#pragma once

#include "tensor/tensor.h"

namespace millrace::cuda {

/// Memory for `count` values of A, for what is enqueued while it lives.
template <typename A>
class Scratch {
 public:
  Scratch(std::int64_t count, Device device)
      : memory_(
            empty({count * static_cast<std::int64_t>(sizeof(A))}, {.dtype = DType::u8, .device = device})) {}
  A* data() const { return reinterpret_cast<A*>(memory_.raw()); }

 private:
  Tensor memory_;
};

}  // namespace millrace::cuda
