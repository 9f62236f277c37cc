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

namespace {

FileDescriptor open_regular(const std::filesystem::path& path, std::uint64_t& size) {
  // Not to wait for a writer, should it be a pipe.
  FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) throw_errno("open", path);
  struct stat status;
  if (fstat(file.get(), &status) != 0) throw_errno("examine", path);
  if (!S_ISREG(status.st_mode)) throw InputError("cannot read {}: it is no regular file", path.string());
  size = static_cast<std::uint64_t>(status.st_size);
  return file;
}

}  // namespace

MappedFile::MappedFile(std::filesystem::path path) : path_(std::move(path)) {
  std::uint64_t size = 0;
  const FileDescriptor file = open_regular(path_, size);
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

DataFile::DataFile(std::filesystem::path path, Reading reading) : path_(std::move(path)) {
  if (reading == Reading::map) {
    size_ = mapped_.emplace(path_).bytes().size();
  } else {
    file_.emplace(open_regular(path_, size_));
  }
}

std::span<const std::byte> DataFile::read(std::uint64_t offset, std::size_t size,
                                          std::vector<std::byte>& scratch) const {
  if (offset > size_ || size > size_ - offset) {
    throw InputError("{}: wanted {} bytes at offset {}, it has {}; it is cut or its index is damaged",
                     path_.string(), size, offset, size_);
  }
  if (mapped_) return mapped_->bytes().subspan(offset, size);
  if (scratch.size() < size)
    scratch.resize(size);  // never shrinks, so that it is not cleared again and again
  for (std::size_t done = 0; done < size;) {
    const ssize_t got =
        pread(file_->get(), scratch.data() + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("read", path_);
    if (got == 0) {
      throw InputError("{}: was cut to {} bytes while it was in use, had {}", path_.string(), offset + done,
                       size_);
    }
    done += static_cast<std::size_t>(got);
  }
  return {scratch.data(), size};
}

}  // namespace millrace
