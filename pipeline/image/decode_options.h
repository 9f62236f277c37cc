#pragma once

#include <cstdint>

#include "dataio/dataset.h"

namespace millrace {

struct DecodeOptions {
  bool exif_orientation = true;  ///< Turn photographs upright, as their camera noted.
  // What is larger is taken for damaged or hostile, before memory is spent on it.
  std::int64_t max_pixels = std::int64_t{1} << 28;
  std::int64_t max_bytes =
      kMostEncodedBytes;  ///< Of an encoded image; data sets read none beyond the default.
};

}  // namespace millrace
