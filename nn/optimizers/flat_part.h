#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "nn/optimizers/kind.h"
#include "nn/optimizers/optimizer.h"
#include "tensor/kernels/optimizer.h"

/// What the kinds' sources share; not for users.
namespace millrace::nn {

/// Elements [begin, end) of the flat buffers, which are to be updated now. Averages and momentums start at
/// zero, so that neither a first step nor a resumed one needs a case of its own.
struct FlatPart {
  FlatParameters& flat;
  const std::map<std::string, Tensor>& buffers;
  std::int64_t begin, end;
  double rate;  // of the schedule
  const OptimizerStep& step;
  std::int64_t frozen_steps;  // of its parameters

  Tensor weights() const { return of(flat.weights()); }
  Tensor gradients() const { return of(flat.gradients()); }
  /// Undefined where the options need no such buffer.
  Tensor state(const char* name) const {
    const auto found = buffers.find(name);
    return found == buffers.end() ? Tensor() : of(found->second);
  }
  GradientStep gradient_step(double weight_decay) const {
    return {.gradient_scale = static_cast<float>(step.gradient_scale),
            .weight_decay = static_cast<float>(weight_decay),
            .control = step.control.data<float>()};
  }

 private:
  Tensor of(const Tensor& buffer) const { return buffer.narrow(0, begin, end - begin); }
};

}  // namespace millrace::nn
