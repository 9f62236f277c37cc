#pragma once

#include <cstddef>
#include <filesystem>

namespace millrace {

/// A file that is written beside its place and takes it only when it is whole and on disk; until then, and
/// when anything fails, whatever was there stays as it was.
class NewFile {
 public:
  /// Follows a link at `path`. @throws MachineError naming the path and the reason, as all members do.
  explicit NewFile(const std::filesystem::path& path);
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(const void* data, std::size_t bytes);
  /// Puts the file into its place; without this it vanishes.
  void commit();

 private:
  std::filesystem::path folder() const;
  [[noreturn]] void fail() const;

  std::filesystem::path path_;
  std::filesystem::path beside_;
  int descriptor_ = -1;
  bool is_named_ = false;  // whether `beside_` is there
};

}  // namespace millrace
