#pragma once

#include <cstdint>

namespace millrace::nn {

/// Which step of a training this thread computes; keys dropout, so that masks do not depend on who does a
/// shard.
struct StepContext {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  std::int64_t first_sample = 0;  ///< Place of this shard's first sample in the global batch.
  std::uint64_t layer = 0;        ///< Counts the dropout layers passed in this forward pass.
};

/// The calling thread's context. A hand-written loop may leave it alone: `layer` then counts on from step to
/// step, so that each pass draws new masks.
StepContext& step_context();

}  // namespace millrace::nn
