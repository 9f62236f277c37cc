#pragma once

#include <cudnn.h>
#include <functional>

/// As much of cuDNN's graph API as choosing an engine needs: its heuristics name three engines, 0 to 2, that
/// want workspace and compute nothing.
namespace millrace::fake_cudnn {

/// Called when an engine runs; its answer is cuDNN's.
void on_run(std::function<cudnnStatus_t(int engine)> answer);

}  // namespace millrace::fake_cudnn
