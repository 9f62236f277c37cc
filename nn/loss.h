#pragma once

#include "autograd/ops.h"

/// Losses as objects, as the tutorial's `criterion`; the functions are in autograd/ops.h.
namespace millrace::nn {

/// logits [n, classes]; target: i64 classes [n], or probabilities [n, classes].
struct CrossEntropyLoss {
  CrossEntropyOptions options = {};
  Variable operator()(const Variable& logits, const Tensor& target) const {
    return cross_entropy(logits, target, options);
  }
};

/// The squared difference of two equal shapes.
struct MSELoss {
  MseOptions options = {};
  Variable operator()(const Variable& input, const Variable& target) const {
    return mse_loss(input, target, options);
  }
};

}  // namespace millrace::nn
