#pragma once

#include "tensor/tensor.h"

namespace millrace::nn {

struct FlatPart;
struct OptimizerFacts;  // nn/optimizers/kind.h says what a kind is
template <typename Options>
struct OptimizerOf;

/// Jordan et al., 2024 (kellerjordan.github.io/posts/muon): the momentum of a filter or matrix, as a matrix
/// of size(0) rows, is brought near to the nearest orthogonal one by Newton-Schulz steps.
struct MuonOptions {
  double learning_rate = 0.02;
  double momentum = 0.95;
  bool nesterov = true;
  int newton_schulz_steps = 5;
  /// Before each update the weight is scaled to the norm sqrt(size(0)), as for airbench94.
  bool normalize_weights = false;
  bool operator==(const MuonOptions&) const = default;
};
using Muon = OptimizerOf<MuonOptions>;

OptimizerFacts facts_of(const MuonOptions& options);
/// Steps the parameters whose end lies in the part, each as a whole.
void update(const MuonOptions& options, const FlatPart& part);

/// A matrix with the singular vectors of `matrix` and singular values that `steps` quintic Newton-Schulz
/// steps bring from at most 1 to about 1 (0.7 to 1.2 after five). Of zeros, zeros.
Tensor orthogonalized(const Tensor& matrix, int steps);

}  // namespace millrace::nn
