#pragma once

#include <cstdint>

#include "nn/module.h"

namespace millrace::nn {

/// What a network costs, whatever it runs on. What a convolution's max pooling leaves out is no work, unless
/// it is computed apart from the pooling and pixels lie behind it.
struct Work {
  std::int64_t parameters = 0;
  /// Floating-point operations (a multiplication and an addition are two) of the convolutions and linear
  /// layers with trained weights, for one image forward. A training step does about three times as many.
  double forward_operations = 0;
};

/// Runs `net` forward on one black image [C, H, W] and adds up its layers. @throws InputError when it does
/// not take it.
Work measure_work(Module& net, const Shape& image);

}  // namespace millrace::nn
