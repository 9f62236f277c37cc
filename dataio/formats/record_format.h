#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dataio/dataset.h"

namespace millrace {

// A records file as bytes: header, payloads, index, classes. docs/records.md describes them.

/// What stands at the start of a records file.
struct RecordHeader {
  static constexpr std::size_t kBytes = 128;
  static constexpr std::uint32_t kVersion = 1;
  /// A flag: each JPEG has a restart marker per row of MCUs.
  static constexpr std::uint32_t kRestartRows = 1;

  std::uint64_t file_size = 0;
  std::uint64_t records = 0;
  std::uint64_t index_offset = 0;  ///< The classes' names begin where the index ends.
  std::uint32_t classes = 0, classes_crc = 0;
  std::uint32_t part = 0, parts = 1;
  std::uint64_t fingerprint = 0;                      ///< Of the whole set, the same in all of its parts.
  std::uint32_t height = 0, width = 0, channels = 3;  ///< As in DatasetInfo.
  std::uint32_t flags = 0;
  std::uint32_t fingerprint_definition = 0;  ///< 0 is the one that docs/records.md describes.

  std::uint64_t classes_offset() const;
  std::array<std::byte, kBytes> encode() const;
  /// @throws InputError saying what is wrong with the file at `path`, of `file_size` bytes, that starts with
  /// `bytes`. What it returns lies within the file.
  static RecordHeader decode(std::span<const std::byte, kBytes> bytes, std::uint64_t file_size,
                             const std::filesystem::path& path);
};

/// One record in the index.
struct RecordEntry {
  static constexpr std::size_t kBytes = 40;
  static constexpr std::uint64_t kAlignment = 64;  ///< Of payloads.

  std::uint64_t offset = 0;  ///< Of the payload; the source's name follows on it.
  std::int64_t label = 0;
  std::uint32_t size = 0;               ///< Of the payload.
  std::uint32_t crc = 0;                ///< CRC-32C of payload and name.
  std::uint32_t height = 0, width = 0;  ///< Of raw images.
  std::uint16_t name_size = 0;
  Encoding encoding = Encoding::raw_hwc;
  std::uint8_t channels = 0;  ///< Of raw images.

  std::array<std::byte, kBytes> encode() const;
  /// Nothing when its own checksum is wrong.
  static std::optional<RecordEntry> decode(std::span<const std::byte, kBytes> bytes);
};

/// The most bytes that the names of all classes take, each with the zero byte that ends it.
constexpr std::uint64_t kMostClassBytes = std::uint64_t{1} << 24;

/// The greatest height and width of a raw image.
constexpr std::uint32_t kMostRawSide = 65535;

}  // namespace millrace
