#pragma once

#include <cstdint>
#include <string>

#include "nn/module.h"

namespace millrace::nn {

struct LinearOptions {
  bool bias = true;
};
/// [n, in] to [n, out]. Weights start as PyTorch's do.
class Linear : public Module {
 public:
  Linear(std::int64_t in, std::int64_t out, const LinearOptions& options = {});
  Variable forward(const Variable& x) override { return linear(x, weight, bias); }
  std::string describe() const override;

  Variable weight;  ///< [out, in]
  Variable bias;    ///< [out], or undefined
};

}  // namespace millrace::nn
