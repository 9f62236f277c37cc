#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "dataio/dataset.h"
#include "dataio/file.h"
#include "dataio/formats/record_format.h"

namespace millrace {

struct RecordWriterOptions {
  std::int64_t part_size = 0;  ///< Begin a new file before one grows beyond this many bytes; 0: one file.
  bool restart_rows = false;   ///< Say in the header that each JPEG has a restart marker per row of MCUs.
};

/// Writes a data set as records: to `path`, or with a part size to path-00000-of-00005 and so on, the number
/// in front of the ending.
///
/// Until `finish`, all of it has names that end in ".part" and headers of zeros, which no reader takes for
/// whole; a writer that is destroyed unfinished removes it. The index of the current file is held in memory,
/// 40 bytes a record.
/// All members throw MachineError when the disk fails or is full.
class RecordWriter {
 public:
  /// @throws InputError when there is such a data set already, or it cannot be written there.
  RecordWriter(std::filesystem::path path, const DatasetInfo& info, const RecordWriterOptions& options = {});
  ~RecordWriter();
  RecordWriter(const RecordWriter&) = delete;
  RecordWriter& operator=(const RecordWriter&) = delete;

  /// `source` says where the sample came from, for messages; its first 65,535 bytes are kept.
  /// @throws InputError naming the source when the label is none of the classes or a raw image's size is
  /// wrong.
  void add(const Sample& sample, std::string_view source);
  /// Puts everything in its place. @throws InputError when there are no records.
  void finish();

  std::int64_t records() const { return records_; }
  std::int64_t bytes() const { return static_cast<std::int64_t>(finished_bytes_ + offset_); }
  std::int64_t files() const { return static_cast<std::int64_t>(parts_.size()); }

 private:
  struct Part {
    std::filesystem::path unfinished;  // empty once it is in its place
    RecordHeader header;
  };

  std::filesystem::path numbered(std::size_t part, std::size_t parts) const;
  void check(const Sample& sample, std::string_view source) const;
  void begin_part();
  void end_part();
  void append(std::span<const std::byte> bytes);
  void flush();

  std::filesystem::path path_;
  RecordWriterOptions options_;
  RecordHeader common_;
  std::vector<std::byte> classes_;  // as the file has them
  Hash hash_;
  std::int64_t records_ = 0;
  std::uint64_t finished_bytes_ = 0;
  std::vector<Part> parts_;
  FileDescriptor lock_;  // on the first part
  // Of the last part:
  std::optional<FileDescriptor> file_;
  std::uint64_t offset_ = 0;
  std::vector<std::byte> buffer_, index_;
};

}  // namespace millrace
