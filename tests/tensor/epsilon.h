#pragma once

#include "tensor/dtype.h"

namespace millrace::test {

/// How far one rounding to `dtype` may move a value, relative to it.
inline double epsilon(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 0x1p-23;
    case DType::f16:
      return 0x1p-10;
    case DType::bf16:
      return 0x1p-7;
    default:
      return 1e-15;
  }
}

}  // namespace millrace::test
