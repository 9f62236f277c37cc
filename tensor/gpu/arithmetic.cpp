#include "tensor/gpu/arithmetic.h"

#include <atomic>

namespace millrace {

namespace {

std::atomic<GpuArithmetic> in_use{};

}  // namespace

GpuArithmetic gpu_arithmetic() { return in_use.load(); }

void set_gpu_arithmetic(GpuArithmetic arithmetic) { in_use.store(arithmetic); }

}  // namespace millrace
