#include "dataio/formats/records.h"

#include <algorithm>
#include <limits>
#include <new>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/hash.h"
#include "dataio/formats/formats.h"
#include "dataio/glob.h"

namespace millrace {

namespace {

constexpr const char* kRemedy = "copy the file anew, or leave the record out";

RecordHeader read_header(const DataFile& file) {
  std::vector<std::byte> scratch;
  if (file.size() < RecordHeader::kBytes) {
    throw InputError("records: {} has {} bytes, less than a header; it was cut, or its writing interrupted",
                     file.path().string(), file.size());
  }
  const auto bytes = file.read(0, RecordHeader::kBytes, scratch).first<RecordHeader::kBytes>();
  return RecordHeader::decode(bytes, file.size(), file.path());
}

/// A name from a file, made fit to print.
std::string printable(std::span<const std::byte> bytes) {
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7F') {
      c = '?';
    }
  }
  return text;
}

/// @throws InputError unless file `i` is the next part of the data set whose first part is file `set`, and
/// has images and classes like the first file's.
void check_part(const std::vector<RecordFile>& files, std::size_t set, std::size_t i,
                const std::vector<std::string>& classes) {
  const RecordHeader& header = files[i].header();
  const RecordHeader& head = files[set].header();
  const std::string path = files[i].path().string(), first = files[0].path().string();
  const bool belongs = header.parts == head.parts && header.fingerprint == head.fingerprint &&
                       header.fingerprint_definition == head.fingerprint_definition;
  if (!belongs || header.part != i - set) {
    throw InputError(
        "records: {} is part {} of {} (from 0), expected part {} of the {} that belong with {}; "
        "name all parts of a data set, each once",
        path, header.part, header.parts, i - set, head.parts, files[set].path().string());
  }
  if (i > 0 && files[i].classes() != classes) {
    throw InputError("records: the classes of {} are not those of {}", path, first);
  }
  if (header.channels != files[0].header().channels) {
    throw InputError("records: {} has images of {} channels, {} of {}", path, header.channels, first,
                     files[0].header().channels);
  }
}

}  // namespace

RecordFile::RecordFile(std::filesystem::path path, const OpenOptions& options)
    : file_(std::move(path), options.reading), header_(read_header(file_)), verify_(options.verify) {
  if (verify_ != Verify::first_read) {
    return;
  }
  verified_.reset(static_cast<std::uint64_t*>(std::calloc(header_.records / 64 + 1, sizeof(std::uint64_t))));
  if (verified_ == nullptr) {
    throw std::bad_alloc();
  }
}

std::vector<std::string> RecordFile::classes() const {
  std::vector<std::byte> scratch;
  const std::uint64_t offset = header_.classes_offset();
  const auto bytes = file_.read(offset, header_.file_size - offset, scratch);
  const auto end_count = std::count(bytes.begin(), bytes.end(), std::byte{0});
  if (crc32c(bytes) != header_.classes_crc || end_count != header_.classes ||
      (!bytes.empty() && bytes.back() != std::byte{0})) {
    throw InputError("records: the names of the {} classes of {} at offset {} are damaged; {}",
                     header_.classes, path().string(), offset, kRemedy);
  }
  std::vector<std::string> names;
  for (auto at = bytes.begin(); at != bytes.end();) {
    const auto end = std::find(at, bytes.end(), std::byte{0});
    names.push_back(printable({at, end}));
    at = end + 1;
  }
  return names;
}

RecordEntry RecordFile::entry(std::uint64_t record, std::vector<std::byte>& scratch) const {
  const std::uint64_t at = header_.index_offset + record * RecordEntry::kBytes;
  const auto entry =
      RecordEntry::decode(file_.read(at, RecordEntry::kBytes, scratch).first<RecordEntry::kBytes>());
  if (!entry) {
    throw InputError("records: {}, record {}: its index entry at offset {} is damaged; {}", path().string(),
                     record, at, kRemedy);
  }
  const std::uint64_t size = std::uint64_t{entry->size} + entry->name_size, most = header_.index_offset;
  if (entry->offset < RecordHeader::kBytes || entry->offset > most || size > most - entry->offset ||
      entry->encoding > Encoding::png || entry->height > kMostRawSide || entry->width > kMostRawSide ||
      entry->label < 0 || (header_.classes > 0 && entry->label >= header_.classes)) {
    throw InputError(
        "records: {}, record {}: its index entry at offset {} makes no sense: {} bytes at {}, label {} of {} "
        "classes, encoding {}, {} x {}; {}",
        path().string(), record, at, size, entry->offset, entry->label, header_.classes,
        static_cast<int>(entry->encoding), entry->height, entry->width, kRemedy);
  }
  return *entry;
}

void RecordFile::verify(std::uint64_t record, const RecordEntry& entry,
                        std::span<const std::byte> bytes) const {
  std::uint64_t* word = verified_ ? &verified_[record / 64] : nullptr;
  const std::uint64_t bit = std::uint64_t{1} << record % 64;
  if (word && std::atomic_ref(*word).load(std::memory_order_relaxed) & bit) {
    return;
  }
  if (const std::uint32_t crc = crc32c(bytes); crc != entry.crc) {
    throw InputError(
        "records: {}, record {} ({}): its {} bytes at offset {} are damaged: CRC-32C {:08x}, "
        "expected {:08x}; {}",
        path().string(), record, printable(bytes.subspan(entry.size)), bytes.size(), entry.offset, crc,
        entry.crc, kRemedy);
  }
  if (word) {
    std::atomic_ref(*word).fetch_or(bit, std::memory_order_relaxed);
  }
}

Sample RecordFile::read(std::uint64_t record, std::vector<std::byte>& scratch) const {
  const RecordEntry entry = this->entry(record, scratch);
  const bool with_name = verify_ != Verify::never;  // the checksum covers it
  const auto bytes =
      file_.read(entry.offset, std::size_t{entry.size} + (with_name ? entry.name_size : 0u), scratch);
  if (with_name) {
    verify(record, entry, bytes);
  }
  return {.bytes = bytes.first(entry.size),
          .encoding = entry.encoding,
          .height = static_cast<int>(entry.height),
          .width = static_cast<int>(entry.width),
          .channels = entry.channels,
          .label = entry.label};
}

std::int64_t RecordFile::label(std::uint64_t record) const {
  std::vector<std::byte> scratch;
  return entry(record, scratch).label;
}

void RecordFile::will_need(std::uint64_t record, std::vector<FileRange>& ranges) const {
  const MappedFile* mapped = file_.advised();
  if (mapped == nullptr) {
    return;
  }
  try {
    std::vector<std::byte> scratch;
    const RecordEntry entry = this->entry(record, scratch);
    ranges.push_back({mapped, entry.offset, std::uint64_t{entry.size} + entry.name_size});
  } catch (const InputError&) {  // reading it will say so
  }
}

std::string RecordFile::describe(std::uint64_t record) const {
  std::string source;
  try {
    std::vector<std::byte> scratch;
    const RecordEntry entry = this->entry(record, scratch);
    source = printable(file_.read(entry.offset + entry.size, entry.name_size, scratch));
  } catch (const InputError&) {  // the message that asks for this name has its own reason
  }
  return fmt::format("{}, record {}{}", path().string(), record,
                     source.empty() ? "" : fmt::format(" ({})", source));
}

Records::Records(std::vector<RecordFile> files) : files_(std::move(files)), starts_{0} {
  if (files_.empty()) {
    throw InputError("records: no files");
  }
  const RecordHeader& first = files_[0].header();
  info_ = {.height = static_cast<int>(first.height),
           .width = static_cast<int>(first.width),
           .channels = static_cast<int>(first.channels),
           .classes = files_[0].classes()};
  Hash sets;
  std::size_t set = 0;  // its first file
  for (std::size_t i = 0; i < files_.size(); ++i) {
    const RecordHeader& header = files_[i].header();
    check_part(files_, set, i, info_.classes);
    if (header.height != first.height || header.width != first.width) {
      info_.height = info_.width = 0;
    }
    if (header.records >
        static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max() - starts_.back())) {
      throw InputError("records: {} claims {} records", files_[i].path().string(), header.records);
    }
    starts_.push_back(starts_.back() + static_cast<std::int64_t>(header.records));
    if (header.part + 1 == header.parts) {
      sets.add(static_cast<std::int64_t>(header.fingerprint));
      fingerprint_ = set == 0 ? header.fingerprint : sets.value();
      set = i + 1;
    }
  }
  if (set != files_.size()) {
    const RecordHeader& last = files_.back().header();
    throw InputError(
        "records: {} is part {} of {} (from 0), and the ones after it are missing; name all parts",
        files_.back().path().string(), last.part, last.parts);
  }
}

Records::Place Records::find(std::int64_t index) const {
  const auto file = std::upper_bound(starts_.begin(), starts_.end(), index) - starts_.begin() - 1;
  const auto i = static_cast<std::size_t>(file);
  return {files_[i], static_cast<std::uint64_t>(index - starts_[i])};
}

Sample Records::read(std::int64_t index, std::vector<std::byte>& scratch) const {
  const auto [file, record] = find(index);
  return file.read(record, scratch);
}

std::int64_t Records::label(std::int64_t index) const {
  const auto [file, record] = find(index);
  return file.label(record);
}

std::string Records::describe(std::int64_t index) const {
  const auto [file, record] = find(index);
  return file.describe(record);
}

void Records::will_need(std::span<const std::int64_t> indices) const {
  std::vector<FileRange> ranges;
  for (const std::int64_t index : indices) {
    const auto [file, record] = find(index);
    file.will_need(record, ranges);
  }
  millrace::will_need(ranges);
}

std::unique_ptr<Dataset> open_records(const std::string& pattern, const OpenOptions& options) {
  std::vector<RecordFile> files;
  for (const std::filesystem::path& path : files_named(pattern)) {
    files.emplace_back(path, options);
  }
  return std::make_unique<Records>(std::move(files));
}

}  // namespace millrace
