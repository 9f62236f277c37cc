#include "nn/optimizers/muon.h"

#include <limits>

#include "tensor/ops.h"

namespace millrace::nn {

Tensor frobenius_norm(const Tensor& matrix) {
  return clamp(sqrt(sum(matrix * matrix)), 1e-7, std::numeric_limits<float>::max());
}

Tensor orthogonalized(const Tensor& matrix, int steps) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;  // the slope at zero as steep as it may be
  const bool is_tall = matrix.size(0) > matrix.size(1);
  Tensor x = (is_tall ? matrix.t() : matrix) / frobenius_norm(matrix);
  for (int step = 0; step < steps; ++step) {
    const Tensor square = matmul(x, x.t());
    const Tensor factor = b * square + c * matmul(square, square);
    x = a * x + matmul(factor, x);
  }
  return is_tall ? x.t() : x;
}

}  // namespace millrace::nn
