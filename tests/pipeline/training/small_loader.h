#pragma once

#include <string>

#include "pipeline/image/loader.h"

namespace millrace {

inline constexpr const char* kTransforms = "random_crop:4,horizontal_flip,normalize";

/// Batches of 16 drawn images, the last one padded.
inline Loader make_loader(DType feed, int shards, int samples = 38) {
  return Loader(open_dataset("synthetic:" + std::to_string(samples)), {.batch_size = 16,
                                                                       .transforms = kTransforms,
                                                                       .mean = {0.4f, 0.5f, 0.6f},
                                                                       .std = {0.2f, 0.3f, 0.25f},
                                                                       .dtype = feed,
                                                                       .tail = Tail::pad,
                                                                       .shards = shards,
                                                                       .threads = 1,
                                                                       .seed = 3});
}

}  // namespace millrace
