#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>

#include "dataio/dataset.h"

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

  std::int64_t records() const;
  std::int64_t bytes() const;
  std::int64_t files() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace
