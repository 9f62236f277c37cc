#pragma once

#include <cstdint>
#include <vector>

#include "pipeline/image/decode.h"

namespace millrace {

/// Resizes pixels by a triangle filter, which widens as the image shrinks so that none is skipped: the
/// "bilinear" of Pillow and torchvision. One per thread: it keeps its memory.
class Resampler {
 public:
  /// `source` (channels together) as `size.height` x `size.width` pixels, in memory of this resampler.
  Pixels resample(const Pixels& source, Size2 size);

 private:
  /// Each of the outputs along one side is a weighted mean of `count` inputs from `first` on.
  struct Taps {
    std::int64_t count = 0;
    std::vector<std::int32_t> first;
    std::vector<float> weights;  // count to each output

    void plan(std::int64_t inputs, std::int64_t outputs);
  };

  Taps rows_, columns_;
  std::vector<float> row_;
  std::vector<std::uint8_t> pixels_;
};

}  // namespace millrace
