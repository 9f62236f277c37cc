#include "dataio/file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "tensor/error.h"

namespace millrace {

void throw_errno(std::string_view operation, const std::filesystem::path& path) {
  const int error = errno;
  switch (error) {
    case EIO:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      throw MachineError("cannot {} {}: {}", operation, path.string(), std::strerror(error));
    default:
      throw InputError("cannot {} {}: {}", operation, path.string(), std::strerror(error));
  }
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) close(fd_);
}

MappedFile::MappedFile(std::filesystem::path path) : path_(std::move(path)) {
  const FileDescriptor file(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) throw_errno("open", path_);
  struct stat status;
  if (fstat(file.get(), &status) != 0) throw_errno("examine", path_);
  if (!S_ISREG(status.st_mode)) throw InputError("cannot read {}: it is no regular file", path_.string());
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size == 0) return;  // nothing to map
  void* address = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (address == MAP_FAILED) throw MachineError("cannot map {}: {}", path_.string(), std::strerror(errno));
  // Samples are read in random order, but all of them: start reading now. Only advice, so failing is no
  // matter.
  madvise(address, size, MADV_WILLNEED);
  bytes_ = {static_cast<const std::byte*>(address), size};
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace millrace
