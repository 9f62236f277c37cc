#pragma once

#include "cudnn_descriptor.h"

namespace millrace::fake_cudnn {

/// One of the fake's engines.
struct Engine {
  std::int64_t index;
  cudnnBackendHeurMode_t named_by;
  std::vector<cudnnBackendNumericalNote_t> numerical;
  std::vector<cudnnBackendBehaviorNote_t> behavior;
  std::int64_t workspace;
  bool always_named;
};

/// Puts into a descriptor that is being finalized what follows from the graph: heuristics' results, an
/// engine's notes, a plan's workspace. @throws Refusal where no engine can do it.
void finalize_engines(Descriptor& descriptor);
/// Whether an engine that was promised to run refuses, by the seed; and its products' numbers.
bool refuses_to_run(const Descriptor& plan);
fakes::Kept kept_by(const Descriptor& plan);
std::int64_t engine_of(const Descriptor& plan);

}  // namespace millrace::fake_cudnn
