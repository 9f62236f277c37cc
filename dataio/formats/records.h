#pragma once

#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "dataio/dataset.h"
#include "dataio/file.h"
#include "dataio/formats/record_format.h"

namespace millrace {

/// One records file. Opening it reads its header and its classes' names, nothing that grows with its records;
/// an index entry is checked whenever it is used, a payload as `Verify` says.
class RecordFile {
 public:
  /// @throws InputError saying what is wrong: no records file, cut, damaged, or its writing was interrupted.
  RecordFile(std::filesystem::path path, const OpenOptions& options);

  const std::filesystem::path& path() const { return file_.path(); }
  const RecordHeader& header() const { return header_; }
  std::vector<std::string> classes() const;

  /// @throws InputError naming the record, its offset and its source when it is damaged.
  Sample read(std::uint64_t record, std::vector<std::byte>& scratch) const;
  std::int64_t label(std::uint64_t record) const;
  /// "train.mlr, record 17 (cat/3.jpg)"
  std::string describe(std::uint64_t record) const;
  /// Adds the record to what is needed soon, where the file wants to be told.
  void will_need(std::uint64_t record, std::vector<FileRange>& ranges) const;

 private:
  RecordEntry entry(std::uint64_t record, std::vector<std::byte>& scratch) const;
  void verify(std::uint64_t record, const RecordEntry& entry, std::span<const std::byte> bytes) const;

  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  DataFile file_;
  RecordHeader header_;
  Verify verify_;
  // A bit a record; pages that nothing touched take no memory.
  std::unique_ptr<std::uint64_t[], Free> verified_;
};

/// The records files of one data set, or of several one after the other.
class Records final : public Dataset {
 public:
  /// `files` must hold every part of each data set in order, and the same classes.
  /// @throws InputError naming what is missing or differs.
  explicit Records(std::vector<RecordFile> files);

  const std::vector<RecordFile>& files() const { return files_; }

  std::int64_t size() const override { return starts_.back(); }
  const DatasetInfo& info() const override { return info_; }
  Sample read(std::int64_t index, std::vector<std::byte>& scratch) const override;
  std::int64_t label(std::int64_t index) const override;
  std::string describe(std::int64_t index) const override;
  /// The header's, which covers all content.
  std::uint64_t fingerprint(int = kFingerprintVersion) const override { return fingerprint_; }
  void will_need(std::span<const std::int64_t> indices) const override;

 private:
  struct Place {
    const RecordFile& file;
    std::uint64_t record;
  };
  Place find(std::int64_t index) const;

  std::vector<RecordFile> files_;
  std::vector<std::int64_t> starts_;  // the first record of each file, and the end
  DatasetInfo info_;
  std::uint64_t fingerprint_ = 0;
};

}  // namespace millrace
