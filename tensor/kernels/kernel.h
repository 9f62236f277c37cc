#pragma once

#include "tensor/tensor.h"

/// The seam between devices: each kernel is declared once in a header of its kind in this folder, defined in
/// tensor/cpu/ and, but for a few, in tensor/cuda/, and launched with MILLRACE_LAUNCH (launch.h). Callers
/// check shapes and types and allocate `out`; kernels assert. Unless a line says otherwise, a kernel
/// overwrites its outputs, outputs are dense, and inputs are dense in the same memory order as the output.
/// Image kernels take shapes N, C, H, W stored channels-last.
#define MILLRACE_KERNEL(name, ...) \
  namespace cpu {                  \
  void name(__VA_ARGS__);          \
  }                                \
  namespace cuda {                 \
  void name(__VA_ARGS__);          \
  }
