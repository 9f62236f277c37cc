#include "pipeline/png_check.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <zlib.h>

namespace millrace {
namespace {

constexpr std::array<unsigned char, 8> kSignature = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};

const unsigned char* data_of(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

bool is_png(std::span<const std::byte> bytes) {
  return bytes.size() >= kSignature.size() &&
         std::equal(kSignature.begin(), kSignature.end(), data_of(bytes));
}

std::uint32_t word_at(const unsigned char* p) {
  return std::uint32_t{p[0]} << 24 | std::uint32_t{p[1]} << 16 | std::uint32_t{p[2]} << 8 |
         std::uint32_t{p[3]};
}

}  // namespace

bool png_is_whole(std::span<const std::byte> bytes) {
  constexpr std::size_t kAround = 12;  // length and name before a chunk's data, check sum behind
  const unsigned char* data = data_of(bytes);
  if (!is_png(bytes)) {
    return false;
  }
  for (std::size_t at = kSignature.size(); at + kAround <= bytes.size();) {
    const std::size_t length = word_at(data + at);
    if (length > bytes.size() - at - kAround) {
      return false;
    }
    const unsigned char* name = data + at + 4;
    if (crc32(0, name, static_cast<uInt>(length + 4)) != word_at(data + at + 8 + length)) {
      return false;
    }
    if (std::equal(name, name + 4, "IEND")) {
      return true;
    }
    at += kAround + length;
  }
  return false;
}

Size2 png_size(std::span<const std::byte> bytes) {
  constexpr std::size_t kWidth = 16, kHeight = 20;  // in the first chunk
  if (!is_png(bytes) || bytes.size() < kHeight + 4) {
    return 1;
  }
  const unsigned char* data = data_of(bytes);
  return {std::max<std::int64_t>(word_at(data + kHeight), 1),
          std::max<std::int64_t>(word_at(data + kWidth), 1)};
}

}  // namespace millrace
