#pragma once

#include <cstdint>
#include <cudnn.h>
#include <functional>
#include <string_view>

/// cuDNN's graph API on emulated GPUs: it takes graphs of one convolution, names engines of its own, and
/// computes in double, on the handle's stream, by what the recorded graph says.
namespace millrace::fake_cudnn {

/// From now on heuristics name all engines that the fake has, not only the two or three that most tests need.
void name_all_engines(bool all);
/// Called when an engine is to run; what it answers other than success is cuDNN's answer.
void on_run(std::function<cudnnStatus_t(int engine)> answer);

/// Descriptors made from now on are the installed cuDNN's as well: what it refuses is refused, its heuristics
/// name the engines, and it finalizes the plans, for the device that is described (JSON in cuDNN's words) in
/// the place of the handle's. Running stays the fake's. An empty text ends it. @returns false without a
/// cuDNN.
bool pass_on(std::string_view device);

/// What was refused by a seed (MILLRACE_REFUSE_LIBRARIES, or fakes::refusing_seed) since the start.
int refusals();

}  // namespace millrace::fake_cudnn
