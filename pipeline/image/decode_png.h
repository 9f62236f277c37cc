#pragma once

#include <span>
#include <vector>

#include "pipeline/image/decode.h"

namespace millrace {

/// The whole of a PNG image, in `buffer`; alpha is dropped, 16 bits become 8. See Decoder for the errors.
Pixels decode_png(std::span<const std::byte> bytes, int channels, const DecodeOptions& options,
                  std::vector<std::uint8_t>& buffer);

}  // namespace millrace
