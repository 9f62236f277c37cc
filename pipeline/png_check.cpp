#include "pipeline/png_check.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <zlib.h>

namespace millrace {

bool png_is_whole(std::span<const std::byte> bytes) {
  constexpr std::array<unsigned char, 8> kSignature = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  constexpr std::size_t kAround = 12;  // length and name before a chunk's data, check sum behind
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  if (bytes.size() < kSignature.size() || !std::equal(kSignature.begin(), kSignature.end(), data)) {
    return true;
  }
  const auto word = [data](std::size_t at) {
    return std::uint32_t{data[at]} << 24 | std::uint32_t{data[at + 1]} << 16 |
           std::uint32_t{data[at + 2]} << 8 | std::uint32_t{data[at + 3]};
  };
  for (std::size_t at = kSignature.size(); at + kAround <= bytes.size();) {
    const std::size_t length = word(at);
    if (length > bytes.size() - at - kAround) {
      return false;
    }
    const unsigned char* name = data + at + 4;
    if (crc32(0, name, static_cast<uInt>(length + 4)) != word(at + 8 + length)) {
      return false;
    }
    if (std::equal(name, name + 4, "IEND")) {
      return true;
    }
    at += kAround + length;
  }
  return false;
}

}  // namespace millrace
