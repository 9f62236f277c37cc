#pragma once

#include <string>
#include <vector>

/// cuBLASLt on emulated GPUs: it takes what the real one is documented to take, reads and writes memory by
/// what each layout says, and no more of it than was allocated.
namespace millrace::fake_cublaslt {

/// From now on there are no algorithms with a bias in the epilogue.
void refuse_biases(bool refuse);
/// Heuristics asked, products computed, since the start.
struct Counts {
  int heuristics = 0, products = 0;
};
Counts counts();
/// What was asked of it that would have gone beyond an allocation.
std::vector<std::string> overruns();

}  // namespace millrace::fake_cublaslt
