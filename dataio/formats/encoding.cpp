#include "dataio/formats/encoding.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace millrace {

std::optional<Encoding> encoding_of(std::span<const std::byte> bytes) {
  constexpr std::array<std::byte, 3> kJpeg = {std::byte{0xFF}, std::byte{0xD8}, std::byte{0xFF}};
  constexpr std::array<std::byte, 8> kPng = {std::byte{0x89}, std::byte{'P'},  std::byte{'N'},
                                             std::byte{'G'},  std::byte{'\r'}, std::byte{'\n'},
                                             std::byte{0x1A}, std::byte{'\n'}};
  const auto starts_with = [&](const auto& magic) {
    return bytes.size() >= magic.size() && std::equal(magic.begin(), magic.end(), bytes.begin());
  };
  if (starts_with(kJpeg)) {
    return Encoding::jpeg;
  }
  if (starts_with(kPng)) {
    return Encoding::png;
  }
  return std::nullopt;
}

bool has_image_ending(std::string_view name) {
  const std::size_t dot = name.find_last_of("./");
  if (dot == std::string_view::npos || name[dot] == '/') {
    return false;
  }
  std::string ending(name.substr(dot));
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  for (const char* known : {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}) {
    if (ending == known) {
      return true;
    }
  }
  return false;
}

}  // namespace millrace
