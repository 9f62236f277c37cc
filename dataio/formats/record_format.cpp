#include "dataio/formats/record_format.h"

#include <algorithm>
#include <concepts>

#include "base/crc32c.h"
#include "base/error.h"

namespace millrace {

namespace {

constexpr std::array<std::uint8_t, 8> kMagic = {0x89, 'M', 'L', 'R', '\r', '\n', 0x1A, '\n'};
constexpr std::uint32_t kByteOrder = 0x01020304;

static_assert(static_cast<int>(Encoding::raw_hwc) == 0 && static_cast<int>(Encoding::raw_chw) == 1 &&
                  static_cast<int>(Encoding::jpeg) == 2 && static_cast<int>(Encoding::png) == 3,
              "these numbers stand in files");

// Little-endian whatever the machine is; compilers make single moves of them.

template <std::unsigned_integral Number>
void put(std::byte* at, Number value) {
  for (std::size_t i = 0; i < sizeof(Number); ++i) {
    at[i] = static_cast<std::byte>(value >> 8 * i);
  }
}

template <std::unsigned_integral Number>
Number get(const std::byte* at) {
  Number value = 0;
  for (std::size_t i = 0; i < sizeof(Number); ++i) {
    value = static_cast<Number>(value | std::to_integer<Number>(at[i]) << 8 * i);
  }
  return value;
}

/// @throws InputError unless these bytes begin a records file that this program reads.
void check_start(std::span<const std::byte, RecordHeader::kBytes> bytes, const std::filesystem::path& path) {
  const std::byte* at = bytes.data();
  if (std::all_of(bytes.begin(), bytes.end(), [](std::byte byte) { return byte == std::byte{0}; })) {
    throw InputError("records: the writing of {} was interrupted; remove it and convert again",
                     path.string());
  }
  if (!std::equal(kMagic.begin(), kMagic.end(), at,
                  [](std::uint8_t a, std::byte b) { return std::byte{a} == b; })) {
    throw InputError("records: {} is no records file; millrace convert writes them", path.string());
  }
  if (const auto order = get<std::uint32_t>(at + 8); order != kByteOrder) {
    throw InputError("records: {} has the byte order {:#010x}, expected {:#010x}; it is damaged or foreign",
                     path.string(), order, kByteOrder);
  }
  if (const auto version = get<std::uint32_t>(at + 12); version != RecordHeader::kVersion) {
    throw InputError("records: {} has version {} of the format, this program reads {}; convert it anew",
                     path.string(), version, RecordHeader::kVersion);
  }
  constexpr std::size_t kSummed = RecordHeader::kBytes - 4;
  if (crc32c(bytes.first(kSummed)) != get<std::uint32_t>(at + kSummed)) {
    throw InputError("records: the header of {} is damaged: wrong checksum; convert it anew", path.string());
  }
}

}  // namespace

std::uint64_t RecordHeader::classes_offset() const { return index_offset + records * RecordEntry::kBytes; }

std::array<std::byte, RecordHeader::kBytes> RecordHeader::encode() const {
  std::array<std::byte, kBytes> bytes{};
  std::byte* at = bytes.data();
  std::transform(kMagic.begin(), kMagic.end(), at, [](std::uint8_t byte) { return std::byte{byte}; });
  put(at + 8, kByteOrder);
  put(at + 12, kVersion);
  put(at + 16, file_size);
  put(at + 24, records);
  put(at + 32, index_offset);
  put(at + 40, classes);
  put(at + 44, classes_crc);
  put(at + 48, part);
  put(at + 52, parts);
  put(at + 56, fingerprint);
  put(at + 64, height);
  put(at + 68, width);
  put(at + 72, channels);
  put(at + 76, flags);
  put(at + 80, fingerprint_definition);
  put(at + kBytes - 4, crc32c(std::span(bytes).first(kBytes - 4)));
  return bytes;
}

RecordHeader RecordHeader::decode(std::span<const std::byte, kBytes> bytes, std::uint64_t file_size,
                                  const std::filesystem::path& path) {
  check_start(bytes, path);
  const std::byte* at = bytes.data();
  RecordHeader header;
  header.file_size = get<std::uint64_t>(at + 16);
  header.records = get<std::uint64_t>(at + 24);
  header.index_offset = get<std::uint64_t>(at + 32);
  header.classes = get<std::uint32_t>(at + 40);
  header.classes_crc = get<std::uint32_t>(at + 44);
  header.part = get<std::uint32_t>(at + 48);
  header.parts = get<std::uint32_t>(at + 52);
  header.fingerprint = get<std::uint64_t>(at + 56);
  header.height = get<std::uint32_t>(at + 64);
  header.width = get<std::uint32_t>(at + 68);
  header.channels = get<std::uint32_t>(at + 72);
  header.flags = get<std::uint32_t>(at + 76);
  header.fingerprint_definition = get<std::uint32_t>(at + 80);
  if (header.file_size != file_size) {
    throw InputError("records: {} has {} bytes, its header says {}; copy or convert it anew", path.string(),
                     file_size, header.file_size);
  }
  // The index first, so that nothing below can overflow.
  if (header.records == 0 || header.index_offset < kBytes || header.index_offset > file_size ||
      header.records > (file_size - header.index_offset) / RecordEntry::kBytes ||
      file_size - header.classes_offset() > kMostClassBytes || header.part >= header.parts ||
      header.height > kMostRawSide || header.width > kMostRawSide || header.channels < 1 ||
      header.channels > 255) {
    throw InputError(
        "records: the header of {} makes no sense: {} records, their index at {} of {} bytes, part {} of "
        "{}, images of {} x {} x {}; convert it anew",
        path.string(), header.records, header.index_offset, file_size, header.part, header.parts,
        header.height, header.width, header.channels);
  }
  return header;
}

std::array<std::byte, RecordEntry::kBytes> RecordEntry::encode() const {
  std::array<std::byte, kBytes> bytes{};
  std::byte* at = bytes.data();
  put(at, offset);
  put(at + 8, static_cast<std::uint64_t>(label));
  put(at + 16, size);
  put(at + 20, crc);
  put(at + 24, height);
  put(at + 28, width);
  put(at + 32, name_size);
  put(at + 34, static_cast<std::uint8_t>(encoding));
  put(at + 35, channels);
  put(at + 36, crc32c(std::span(bytes).first(kBytes - 4)));
  return bytes;
}

std::optional<RecordEntry> RecordEntry::decode(std::span<const std::byte, kBytes> bytes) {
  const std::byte* at = bytes.data();
  if (crc32c(bytes.first(kBytes - 4)) != get<std::uint32_t>(at + 36)) {
    return std::nullopt;
  }
  RecordEntry entry;
  entry.offset = get<std::uint64_t>(at);
  entry.label = static_cast<std::int64_t>(get<std::uint64_t>(at + 8));
  entry.size = get<std::uint32_t>(at + 16);
  entry.crc = get<std::uint32_t>(at + 20);
  entry.height = get<std::uint32_t>(at + 24);
  entry.width = get<std::uint32_t>(at + 28);
  entry.name_size = get<std::uint16_t>(at + 32);
  entry.encoding = static_cast<Encoding>(get<std::uint8_t>(at + 34));
  entry.channels = get<std::uint8_t>(at + 35);
  return entry;
}

}  // namespace millrace
