#pragma once

/// cuBLASLt on emulated GPUs: it takes what the real one is documented to take (cublaslt_rules.h), reads and
/// writes device memory by what each layout says, on the stream, and computes in double.
namespace millrace::fake_cublaslt {

/// From now on there are no algorithms with a bias in the epilogue.
void refuse_biases(bool refuse);
/// Heuristics asked, products computed, since the start.
struct Counts {
  int heuristics = 0, products = 0;
};
Counts counts();

}  // namespace millrace::fake_cublaslt
