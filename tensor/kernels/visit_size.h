#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

/// Types for kernels that only move elements, or store places.
namespace millrace {

/// Calls `f` with an unsigned integer of as many bytes as an element has: 1, 2, 4 or 8.
template <typename F>
void visit_size(std::size_t bytes, F&& f) {
  switch (bytes) {
    case 1:
      return f.template operator()<std::uint8_t>();
    case 2:
      return f.template operator()<std::uint16_t>();
    case 4:
      return f.template operator()<std::uint32_t>();
    default:
      return f.template operator()<std::uint64_t>();
  }
}

/// Calls `f` with the type of a place in a pooling window: u8 where it fits, else i32.
template <typename F>
void visit_place(DType dtype, F&& f) {
  if (dtype == DType::u8) {
    f.template operator()<std::uint8_t>();
  } else {
    f.template operator()<std::int32_t>();
  }
}

}  // namespace millrace
