#pragma once

#include <string>

#include "nn/module.h"

namespace millrace::nn {

/// Zeroes each element with probability p in training and scales the rest by 1 / (1 - p). The mask follows
/// from the step context (seed, step, layer, place in the global batch). Srivastava et al., JMLR 15, 2014.
class Dropout : public Module {
 public:
  explicit Dropout(double p = 0.5);
  Variable forward(const Variable& x) override;
  std::string describe() const override;

 private:
  double p_;
};

}  // namespace millrace::nn
