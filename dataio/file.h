#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "dataio/dataset.h"

namespace millrace {

/// Throws for the current `errno`: what failed on which path and why. A MachineError when it is the machine's
/// fault (disk, memory, open files), else an InputError.
[[noreturn]] void throw_errno(std::string_view operation, const std::filesystem::path& path);

/// An open file descriptor, closed with its owner.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&&) = delete;
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

/// A regular file that holds many samples, read by position from any number of threads.
class DataFile {
 public:
  /// @throws InputError when it cannot be opened or is no regular file; MachineError when it cannot be
  /// mapped.
  DataFile(std::filesystem::path path, Reading reading);

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return size_; }  ///< When it was opened.
  /// Bytes [offset, offset + size): in place where the file is mapped, else in `scratch`.
  /// @throws InputError naming the file and the offset when they are not all there.
  std::span<const std::byte> read(std::uint64_t offset, std::size_t size,
                                  std::vector<std::byte>& scratch) const;

 private:
  std::filesystem::path path_;
  std::uint64_t size_ = 0;
  std::optional<MappedFile> mapped_;
  std::optional<FileDescriptor> file_;  // when it is not mapped
};

}  // namespace millrace
