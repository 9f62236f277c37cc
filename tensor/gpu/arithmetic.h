#pragma once

namespace millrace {

/// How GPUs may compute, one setting for the process. The CPU knows no such choice.
struct GpuArithmetic {
  /// f32 convolutions and matrix products on tensor cores, which keep 10 bits of the factors' mantissas.
  bool tf32 = false;
  /// Only convolution engines that give the same bits in every run.
  bool deterministic = false;
  bool operator==(const GpuArithmetic&) const = default;
};

GpuArithmetic gpu_arithmetic();
/// Holds for what is enqueued from now on, by any thread.
void set_gpu_arithmetic(GpuArithmetic arithmetic);

}  // namespace millrace
