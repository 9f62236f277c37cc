#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace millrace {

/// Throws for the current `errno`: what failed on which path and why. A MachineError when it is the machine's
/// fault (disk, memory, open files), else an InputError.
[[noreturn]] void throw_errno(std::string_view operation, const std::filesystem::path& path);

/// An open file descriptor, closed with its owner.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor();
  int get() const { return fd_; }

 private:
  int fd_;
};

/// A regular file mapped into memory for reading; its size is fixed when it is opened.
class MappedFile {
 public:
  /// @throws InputError when it cannot be opened or is no regular file; MachineError when it cannot be
  /// mapped.
  explicit MappedFile(std::filesystem::path path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

}  // namespace millrace
