#pragma once

#include <cstddef>
#include <span>

#include "tensor/kernels.h"

namespace millrace {

/// Whether `bytes` are a PNG file whose chunks are all there with the right check sums. libpng writes to
/// standard error by itself when it comes upon damage, so damage has to be found before.
bool png_is_whole(std::span<const std::byte> bytes);
/// The size that a PNG file claims; 1 x 1 for anything else.
Size2 png_size(std::span<const std::byte> bytes);

}  // namespace millrace
