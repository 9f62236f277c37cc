#pragma once

#include <string_view>

#include "tensor/dtype.h"

namespace millrace::cpu {

/// Calls `f.template operator()<T>()` for f32 or bf16, what the network kernels compute in.
/// @throws InputError naming `operation` on any other type.
template <typename F>
void visit_float(DType dtype, std::string_view operation, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::bf16:
      return f.template operator()<bfloat16>();
    default:
      throw InputError("{}: got type {}, expected f32 or bf16 (convert with to())", operation, dtype);
  }
}

}  // namespace millrace::cpu
