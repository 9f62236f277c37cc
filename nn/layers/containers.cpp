#include "nn/layers/containers.h"

namespace millrace::nn {

Variable Sequential::forward(const Variable& x) {
  Variable y = x;
  for (const auto& module : owned_) {
    y = module->forward(y);
  }
  return y;
}

}  // namespace millrace::nn
