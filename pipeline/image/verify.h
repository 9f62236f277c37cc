#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "dataio/dataset.h"

namespace millrace {

struct VerifyOptions {
  int threads = 0;  ///< 0 means this process's cores.
  /// Both are called by one thread at a time, in the samples' order. `reason` names the sample.
  std::function<void(const std::string& reason)> on_damaged = {};
  std::function<void(std::int64_t done)> on_progress = {};
};

struct Verified {
  std::int64_t damaged = 0;  ///< Samples that cannot be read, or that a loader would take for bad.
  std::int64_t decoded = 0;  ///< JPEG and PNG images that are whole.
};

/// Reads every sample of `data` and decodes its image whole, as a loader does: libjpeg's warnings are damage.
/// Holds one image a thread in memory.
Verified verify(const Dataset& data, const VerifyOptions& options = {});

}  // namespace millrace
