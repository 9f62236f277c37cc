#include <algorithm>
#include <array>
#include <optional>
#include <zlib.h>

#include "base/hash.h"
#include "pipeline/image/decode.h"
#include "pipeline/image/jpeg_header.h"
#include "pipeline/image/orientation.h"
#include "pipeline/image/restart_rows.h"
#include "targets.h"

namespace millrace::fuzz {
namespace {

// Small, so that a run takes milliseconds.
constexpr DecodeOptions kLimits{.max_pixels = 1 << 20};

std::uint64_t hash_pixels(const Pixels& pixels) {
  Hash hash;
  hash.add(pixels.height).add(pixels.width).add(pixels.channels);
  for (std::int64_t y = 0; y < pixels.height; ++y) {
    hash.add(std::string_view(reinterpret_cast<const char*>(pixels.at(y, 0)),
                              static_cast<std::size_t>(pixels.width * pixels.channels)));
  }
  return hash.value();
}

std::uint64_t decode(std::span<const std::byte> bytes, Encoding encoding) {
  Decoder decoder;
  const Sample sample{.bytes = bytes, .encoding = encoding};
  return hash_pixels(decoder.decode(SamplePlan(decoder.open(sample, 3, kLimits))));
}

std::uint64_t jpeg(std::span<const std::byte> bytes) { return decode(bytes, Encoding::jpeg); }
std::uint64_t png(std::span<const std::byte> bytes) { return decode(bytes, Encoding::png); }

/// Eight bytes say what is to be cut out of the JPEG that follows, and to what size it is to be shrunk.
std::uint64_t jpeg_crop(std::span<const std::byte> bytes) {
  constexpr std::size_t kChoices = 8;
  if (bytes.size() < kChoices) {
    return 0;
  }
  const auto choice = [&](std::size_t i, std::int64_t below) {
    return std::to_integer<std::int64_t>(bytes[i]) * below / 256;
  };
  const Sample sample{.bytes = bytes.subspan(kChoices), .encoding = Encoding::jpeg};
  const int channels = choice(0, 2) == 0 ? 3 : 1;
  DecodeOptions options = kLimits;
  options.exif_orientation = std::to_integer<int>(bytes[0]) % 2 == 0;
  Decoder decoder;
  const Size2 size = decoder.open(sample, channels, options);
  SamplePlan plan(size);
  plan.crop = {choice(1, size.height), choice(2, size.width), 0, 0};
  plan.crop.height = 1 + choice(3, size.height - plan.crop.top);
  plan.crop.width = 1 + choice(4, size.width - plan.crop.left);
  plan.resized = {1 + choice(5, plan.crop.height), 1 + choice(6, plan.crop.width)};
  if (choice(7, 2) == 0) {
    plan.resized = plan.crop.size();
  }
  const Pixels pixels = decoder.decode(plan);
  const std::uint64_t hash = hash_pixels(pixels);
  if (pixels.height != plan.crop.height || pixels.width != plan.crop.width) {
    return hash;
  }

  // Not shrunk: the same part of the whole image. Damage outside of the crop may keep that from being had.
  try {
    decoder.open(sample, channels, options);
    if (hash_pixels(decoder.decode(SamplePlan(size)).part(plan.crop)) != hash) {
      throw std::logic_error("a crop differs from the same part of the whole image");
    }
  } catch (const InputError&) {
  }
  return hash;
}

std::uint64_t exif(std::span<const std::byte> bytes) {
  const int orientation = exif_orientation(bytes);
  if (orientation < 1 || orientation > 8) {
    throw std::logic_error("an orientation beyond 1 to 8");
  }
  return static_cast<std::uint64_t>(orientation);
}

std::uint32_t word_at(std::span<const std::byte> bytes, std::size_t at) {
  std::uint32_t word = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    word = word << 8 | std::to_integer<std::uint32_t>(bytes[at + i]);
  }
  return word;
}

/// Each chunk is a length, a name, so many bytes and their checksum.
void seal_png(std::vector<std::byte>& bytes) {
  for (std::size_t at = 8; at + 12 <= bytes.size();) {
    const std::size_t length = word_at(bytes, at);
    if (length > bytes.size() - at - 12) {
      return;
    }
    const auto crc = crc32(0, reinterpret_cast<const Bytef*>(&bytes[at + 4]), static_cast<uInt>(length + 4));
    at += 8 + length;
    for (int shift = 24; shift >= 0; shift -= 8) {
      bytes[at++] = static_cast<std::byte>(crc >> shift);
    }
  }
}

/// What is rewritten can be decoded, and rewriting it again changes nothing. Its pixels are compared
/// elsewhere: of a damaged file, libjpeg's two ways to read Huffman codes may make different ones.
std::uint64_t restart_rows(std::span<const std::byte> bytes) {
  jpeg(bytes);  // keeps to the limits
  RestartRows rows;
  const std::vector<std::byte> rewritten = rows.rewrite(bytes);
  if (!read_jpeg_header(rewritten).has_restart_rows()) {
    throw std::logic_error("has no restart rows");
  }
  if (rows.rewrite(rewritten) != rewritten) {
    throw std::logic_error("is not the same when rewritten again");
  }
  return jpeg(rewritten);
}

constexpr Target kTargets[] = {{"jpeg", jpeg},
                               {"restart_rows", restart_rows},
                               {"jpeg_crop", jpeg_crop},
                               {"exif", exif},
                               {"png", png, false, seal_png}};

}  // namespace

std::span<const Target> image_targets() { return kTargets; }

}  // namespace millrace::fuzz
