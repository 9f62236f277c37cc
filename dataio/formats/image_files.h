#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "dataio/dataset.h"
#include "dataio/file.h"

namespace millrace {

/// JPEG and PNG files by name, each opened when it is read.
class ImageFiles final : public Dataset {
 public:
  /// Names are relative to `root`. `kind` is for messages.
  /// @throws InputError when `root` is no folder.
  ImageFiles(std::string kind, std::filesystem::path root);

  /// `name` holds no zero byte.
  void add(std::string_view name, std::int64_t label);
  /// Label i becomes `labels[i]`.
  void renumber(const std::vector<std::int32_t>& labels);
  void name_classes(std::vector<std::string> names) { info_.classes = std::move(names); }

  std::int64_t size() const override { return static_cast<std::int64_t>(starts_.size()); }
  const DatasetInfo& info() const override { return info_; }
  Sample read(std::int64_t index, std::vector<std::byte>& scratch) const override;
  std::int64_t label(std::int64_t index) const override { return labels_[static_cast<std::size_t>(index)]; }
  std::string describe(std::int64_t index) const override { return (root_ / name(index)).string(); }
  std::uint64_t fingerprint(int version = kFingerprintVersion) const override;

 private:
  /// Their names as well: they are at hand, where the size of each file would take a look at the disk.
  void add_known(Hash& hash) const override;
  const char* name(std::int64_t index) const {
    return names_.data() + starts_[static_cast<std::size_t>(index)];
  }
  std::span<const std::byte> read_all(int file, std::int64_t index, std::vector<std::byte>& scratch) const;

  std::string kind_;
  std::filesystem::path root_;
  FileDescriptor directory_;
  DatasetInfo info_;
  // Millions of names take one block: each ends with a zero byte, starts_ says where it begins.
  std::string names_;
  std::vector<std::size_t> starts_;
  std::vector<std::int32_t> labels_;
};

}  // namespace millrace
