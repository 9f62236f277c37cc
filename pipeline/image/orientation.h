#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pipeline/image/decode.h"
#include "pipeline/image/transform.h"

namespace millrace {

/// The orientation (1 to 8) that a camera noted; 1, upright, where `exif`, an APP1 segment without its
/// length, notes none or cannot be followed.
int exif_orientation(std::span<const std::byte> exif);
/// The same of what follows the name "Exif" there; PNG stores that alone.
int tiff_orientation(std::span<const std::byte> bytes);

/// The size of an upright image once it is stored as `orientation`, and the other way round.
Size2 oriented(Size2 size, int orientation);

/// Where `upright`, a part of an image that is `stored` large in the file, lies there.
Rectangle stored_part(const Rectangle& upright, Size2 stored, int orientation);

/// Turns stored pixels, channels together, upright into `memory`.
Pixels turn_upright(const Pixels& stored, int orientation, std::vector<std::uint8_t>& memory);

}  // namespace millrace
