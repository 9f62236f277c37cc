#include "pipeline/image/orientation.h"

#include <cstring>
#include <opencv2/core.hpp>

namespace millrace {
namespace {

// Orientation o says that the stored image becomes upright when it is, in this order, transposed (o > 4),
// mirrored left to right and turned upside down.
bool is_transposed(int orientation) { return orientation > 4; }
bool is_mirrored(int orientation) {
  return orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
}
bool is_upside_down(int orientation) {
  return orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
}

/// Reads numbers of a TIFF structure in its own byte order; beyond its end all is zero.
struct Tiff {
  std::span<const std::byte> bytes;
  bool little = false;

  std::uint32_t number(std::size_t at, std::size_t size) const {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < size && at <= bytes.size() && size <= bytes.size() - at; ++i) {
      value = value << 8 | std::to_integer<std::uint32_t>(bytes[at + (little ? size - 1 - i : i)]);
    }
    return value;
  }
};

}  // namespace

int exif_orientation(std::span<const std::byte> exif) {
  constexpr std::size_t kName = 6;
  const bool is_exif = exif.size() >= kName && std::memcmp(exif.data(), "Exif\0", kName) == 0;
  return is_exif ? tiff_orientation(exif.subspan(kName)) : 1;
}

int tiff_orientation(std::span<const std::byte> bytes) {
  constexpr std::size_t kEntry = 12;
  constexpr std::uint32_t kTag = 0x0112, kShort = 3;
  const Tiff tiff{bytes, !bytes.empty() && bytes[0] == std::byte{'I'}};
  const std::size_t directory = tiff.number(4, 4);
  const std::size_t entries = tiff.number(directory, 2);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + i * kEntry;
    if (tiff.number(entry, 2) == kTag && tiff.number(entry + 2, 2) == kShort) {
      const std::uint32_t value = tiff.number(entry + 8, 2);
      return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
    }
  }
  return 1;
}

Size2 oriented(Size2 size, int orientation) {
  return is_transposed(orientation) ? Size2(size.width, size.height) : size;
}

Rectangle stored_part(const Rectangle& upright, Size2 stored, int orientation) {
  Rectangle part = upright;
  const Size2 size = oriented(stored, orientation);
  if (is_mirrored(orientation)) {
    part.left = size.width - part.left - part.width;
  }
  if (is_upside_down(orientation)) {
    part.top = size.height - part.top - part.height;
  }
  return is_transposed(orientation) ? Rectangle{part.left, part.top, part.width, part.height} : part;
}

Pixels turn_upright(const Pixels& stored, int orientation, std::vector<std::uint8_t>& memory) {
  const int type = CV_8UC(stored.channels);
  const cv::Mat from(static_cast<int>(stored.height), static_cast<int>(stored.width), type,
                     const_cast<std::uint8_t*>(stored.data),
                     static_cast<std::size_t>(stored.stride));  // only read
  const Size2 size = oriented({stored.height, stored.width}, orientation);
  memory.resize(static_cast<std::size_t>(size.height * size.width * stored.channels));
  cv::Mat upright(static_cast<int>(size.height), static_cast<int>(size.width), type, memory.data());
  if (is_transposed(orientation)) {
    cv::transpose(from, upright);
  } else {
    from.copyTo(upright);
  }
  const bool mirrored = is_mirrored(orientation), upside_down = is_upside_down(orientation);
  if (mirrored || upside_down) {
    cv::flip(upright, upright, mirrored && upside_down ? -1 : mirrored ? 1 : 0);
  }
  return {memory.data(), size.height, size.width, stored.channels, size.width * stored.channels};
}

}  // namespace millrace
