#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dataio/dataset.h"
#include "dataio/mapping.h"

namespace millrace {

/// Throws for the current `errno`: what failed on which path and why. A MachineError when it is the machine's
/// fault (disk, memory, open files), else an InputError.
[[noreturn]] void throw_errno(std::string_view operation, const std::filesystem::path& path);

/// An open file descriptor, closed with its owner.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept { return std::swap(fd_, other.fd_), *this; }
  ~FileDescriptor();
  int get() const { return fd_; }

 private:
  int fd_;
};

/// A regular file mapped into memory for reading; its size is fixed when it is opened. When somebody cuts the
/// file in the meantime, the lost part reads as zeros and mapped_reads_intact() (mapping.h) says so.
class MappedFile {
 public:
  /// @throws InputError when it cannot be opened or is no regular file; MachineError when it cannot be
  /// mapped.
  explicit MappedFile(std::filesystem::path path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return bytes_.size(); }
  std::span<const std::byte> bytes() const { return bytes(0, bytes_.size()); }
  /// Bytes [offset, offset + size), which must lie inside.
  /// @throws InputError when they are known to be lost; MachineError when the disk failed.
  std::span<const std::byte> bytes(std::uint64_t offset, std::size_t size) const;
  /// Whether it is read page by page, and not all of it from the beginning on: it wants to be told what is
  /// needed soon.
  bool wants_advice() const { return !read_whole_ && !bytes_.empty(); }
  /// Starts reading a part; what lies outside is left out.
  void will_need(std::uint64_t offset, std::uint64_t size) const;

 private:
  std::filesystem::path path_;
  FileDescriptor file_;
  std::span<const std::byte> bytes_;
  WatchedMapping* watched_ = nullptr;
  bool read_whole_ = false;
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
  /// The mapping that wants to be told what is needed soon, or null.
  const MappedFile* advised() const { return mapped_ && mapped_->wants_advice() ? &*mapped_ : nullptr; }

 private:
  std::filesystem::path path_;
  std::uint64_t size_ = 0;
  std::optional<MappedFile> mapped_;
  std::optional<FileDescriptor> file_;  // when it is not mapped
};

/// The lines of a text that are not empty, ended by "\n" or "\r\n".
/// @throws InputError when it cannot be opened or is no regular file.
std::vector<std::string> lines_of(const std::filesystem::path& path);

/// A part of a file that is needed soon.
struct FileRange {
  const MappedFile* file = nullptr;
  std::uint64_t offset = 0, size = 0;
};

/// Starts reading the parts, neighbours at once; sorts `ranges`.
void will_need(std::vector<FileRange>& ranges);

}  // namespace millrace
