#pragma once

#include "tensor/tensor.h"

namespace millrace::nn {

/// The root of the sum of squares, and no less than 1e-7; no dimensions.
Tensor frobenius_norm(const Tensor& matrix);

/// A matrix with the singular vectors of `matrix` and singular values that `steps` quintic Newton-Schulz
/// steps bring from at most 1 to about 1 (0.7 to 1.2 after five). Of zeros, zeros.
Tensor orthogonalized(const Tensor& matrix, int steps);

}  // namespace millrace::nn
