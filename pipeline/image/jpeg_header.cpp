#include "pipeline/image/jpeg_header.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "pipeline/image/orientation.h"

namespace millrace {
namespace {

// Second bytes of markers.
constexpr int kSof0 = 0xC0, kSof1 = 0xC1, kSof9 = 0xC9, kSof15 = 0xCF, kDht = 0xC4, kJpg = 0xC8, kDac = 0xCC;
constexpr int kRst0 = 0xD0, kRst7 = 0xD7, kSoi = 0xD8, kEoi = 0xD9, kSos = 0xDA, kDri = 0xDD, kApp1 = 0xE1;
constexpr int kTem = 0x01;

[[noreturn]] void fail(const char* reason) {
  throw InputError("damaged JPEG: {}; replace or remove it", reason);
}

int byte_at(std::span<const std::byte> bytes, std::size_t at) {
  if (at >= bytes.size()) {
    fail("ends before its first scan");
  }
  return std::to_integer<int>(bytes[at]);
}

int word_at(std::span<const std::byte> bytes, std::size_t at) {
  return byte_at(bytes, at) << 8 | byte_at(bytes, at + 1);
}

bool is_frame(int marker) {
  return marker >= kSof0 && marker <= kSof15 && marker != kDht && marker != kJpg && marker != kDac;
}

/// @returns the number of components. `segment` starts with its length.
int read_frame(std::span<const std::byte> segment, JpegHeader& header) {
  header.size = {word_at(segment, 3), word_at(segment, 5)};
  const int components = byte_at(segment, 7);
  if (header.size.height == 0 || header.size.width == 0 || components < 1 || components > 4) {
    fail("has no pixels or not 1 to 4 components");
  }
  int high = 1, wide = 1;
  for (int i = 0; i < components; ++i) {
    const int factors = byte_at(segment, static_cast<std::size_t>(9 + 3 * i));
    const int h = factors >> 4, v = factors & 15;
    if (h < 1 || h > 4 || v < 1 || v > 4) {
      fail("has sampling factors beyond 1 to 4");
    }
    wide = std::max(wide, h);
    high = std::max(high, v);
  }
  header.unit = components == 1 ? Size2(8) : Size2(8 * high, 8 * wide);  // a single component has no ratios
  return components;
}

/// Where the next marker's FF stands in [from, end); zeros after an FF are data, further FFs are filling.
const std::byte* find_marker(const std::byte* from, const std::byte* end) {
  while (from < end) {
    const auto* ff =
        static_cast<const std::byte*>(std::memchr(from, 0xFF, static_cast<std::size_t>(end - from)));
    if (ff == nullptr || ff + 1 == end) {
      return nullptr;
    }
    if (ff[1] != std::byte{0} && ff[1] != std::byte{0xFF}) {
      return ff;
    }
    from = ff + 1;
  }
  return nullptr;
}

}  // namespace

JpegHeader read_jpeg_header(std::span<const std::byte> bytes) {
  if (bytes.size() < 2 || word_at(bytes, 0) != (0xFF00 | kSoi)) {
    fail("does not begin with its start marker");
  }
  JpegHeader header;
  int components = 0, frame = 0;
  for (std::size_t at = 2;;) {
    if (byte_at(bytes, at) != 0xFF) {
      fail("has something else where a marker should be");
    }
    while (byte_at(bytes, at) == 0xFF) {
      ++at;
    }
    const int marker = byte_at(bytes, at++);
    if ((marker >= kRst0 && marker <= kRst7) || marker == kTem) {
      continue;
    }
    if (marker == kEoi || marker == kSoi) {
      fail("has no pixels");
    }
    const auto length = static_cast<std::size_t>(word_at(bytes, at));
    if (length < 2 || length > bytes.size() - at) {
      fail("a segment is longer than the file");
    }
    const auto segment = bytes.subspan(at, length);
    if (is_frame(marker)) {
      frame = marker;
      header.height_at = at + 3;
      components = read_frame(segment, header);
    } else if (marker == kDri) {
      header.restart_interval = word_at(segment, 2);
    } else if (marker == kApp1 && header.orientation == 1) {  // there may be others, of XMP, before EXIF's
      header.orientation = exif_orientation(segment.subspan(2));
    }
    at += length;
    if (marker == kSos) {
      if (frame == 0) {
        fail("a scan comes before the frame");
      }
      header.scan_at = at;
      header.arithmetic = frame >= kSof9;
      header.sequential = (frame == kSof0 || frame == kSof1) && byte_at(segment, 2) == components;
      return header;
    }
  }
}

void check_jpeg_size(const JpegHeader& header, std::size_t bytes, std::int64_t max_pixels) {
  // A Huffman-coded block takes a bit at least, and there are eight blocks to 32 x 32 pixels at the sparsest.
  constexpr std::int64_t kMostPixelsPerByte = 1024;
  const Size2 size = header.size;
  const std::int64_t pixels = size.height * size.width;
  if (pixels > max_pixels) {
    throw InputError("JPEG of {} x {} (height x width) is larger than {} pixels; shrink or remove it",
                     size.height, size.width, max_pixels);
  }
  if (!header.arithmetic && pixels / kMostPixelsPerByte > static_cast<std::int64_t>(bytes)) {
    throw InputError("damaged JPEG: {} x {} (height x width) in {} bytes; replace or remove it", size.height,
                     size.width, bytes);
  }
}

bool has_jpeg_end(std::span<const std::byte> bytes, std::size_t begin) {
  for (std::size_t size = bytes.size(); size > begin;) {
    const void* ff = memrchr(bytes.data() + begin, 0xFF, size - begin);
    if (ff == nullptr) {
      return false;
    }
    size = static_cast<std::size_t>(static_cast<const std::byte*>(ff) - bytes.data());
    if (size + 1 < bytes.size() && std::to_integer<int>(bytes[size + 1]) == kEoi) {
      return true;
    }
  }
  return false;
}

std::span<const std::byte> cut_rows(std::span<const std::byte> bytes, const JpegHeader& header,
                                    std::int64_t first, std::int64_t last, std::vector<std::byte>& out) {
  if (out.size() < bytes.size()) {
    out.resize(bytes.size());
  }
  std::byte* to = std::copy_n(bytes.data(), header.scan_at, out.data());
  const std::int64_t bottom = last == header.unit_rows() ? header.size.height : last * header.unit.height;
  const std::int64_t height = bottom - first * header.unit.height;
  out[header.height_at] = static_cast<std::byte>(height >> 8);
  out[header.height_at + 1] = static_cast<std::byte>(height & 255);

  const auto marker = [&to](int which) {
    *to++ = std::byte{0xFF};
    *to++ = static_cast<std::byte>(which);
  };
  const std::byte* from = bytes.data() + header.scan_at;
  for (std::int64_t row = 0; row < last; ++row) {
    const std::byte* end = find_marker(from, bytes.data() + bytes.size());
    const int expected = row + 1 == header.unit_rows() ? kEoi : kRst0 + static_cast<int>(row % 8);
    if (end == nullptr || std::to_integer<int>(end[1]) != expected) {
      return {};
    }
    if (row >= first) {
      to = std::copy(from, end, to);
      marker(row + 1 == last ? kEoi : kRst0 + static_cast<int>((row - first) % 8));
    }
    from = end + 2;
  }
  return {out.data(), to};
}

}  // namespace millrace
