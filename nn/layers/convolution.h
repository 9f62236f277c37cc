#pragma once

#include <cstdint>
#include <string>

#include "nn/module.h"

namespace millrace::nn {

using millrace::Conv2dOptions;

/// [N, in, H, W] to [N, out, H', W']. Weights start as PyTorch's do.
class Conv2d : public Module {
 public:
  Conv2d(std::int64_t in, std::int64_t out, const Conv2dOptions& options);
  Variable forward(const Variable& x) override;
  std::string describe() const override;

  Variable weight;  ///< [out, in / groups, height, width]
  Variable bias;    ///< [out], or undefined

 private:
  Conv2dOptions options_;
};

}  // namespace millrace::nn
