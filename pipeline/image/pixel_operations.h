#pragma once

#include <cstdint>
#include <vector>

#include "pipeline/image/transform.h"

namespace millrace {

/// Carries out operations on the values of an image's bytes, in place and one after the other. One per
/// thread: it keeps its memory.
class PixelOperator {
 public:
  /// @param pixels size.height x size.width x channels, without gaps.
  /// @throws TransformError when there are not 1 or 3 channels.
  void apply(const PixelOperations& operations, std::uint8_t* pixels, Size2 size, int channels);

 private:
  std::vector<std::uint8_t> before_;  // the pixels that a filter or a warp reads
};

}  // namespace millrace
