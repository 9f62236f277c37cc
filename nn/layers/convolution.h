#pragma once

#include <cstdint>
#include <string>

#include "nn/module.h"

namespace millrace::nn {

struct Conv2dOptions {
  Size2 kernel;
  Size2 stride = 1;
  Size2 padding = 0;
  Size2 dilation = 1;
  std::int64_t groups = 1;
  bool bias = true;
  bool max_pool = false;  ///< Of 2x2 windows behind, in the same pass where that is faster.
};
/// [N, in, H, W] to [N, out, H', W']. Weights start as PyTorch's do.
class Conv2d : public Module {
 public:
  Conv2d(std::int64_t in, std::int64_t out, const Conv2dOptions& options);
  Variable forward(const Variable& x) override;
  std::string describe() const override;

  Variable weight;  ///< [out, in / groups, height, width]
  Variable bias;    ///< [out], or undefined

 private:
  Conv2dParams params_;
};

}  // namespace millrace::nn
