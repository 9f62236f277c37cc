#include "dataio/file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sstream>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <tuple>
#include <unistd.h>
#include <utility>

#include "base/error.h"

namespace millrace {

void throw_errno(std::string_view operation, const std::filesystem::path& path) {
  const int error = errno;
  switch (error) {
    case EIO:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      throw MachineError("cannot {} {}: {}", operation, path.string(), std::strerror(error));
    default:
      throw InputError("cannot {} {}: {}", operation, path.string(), std::strerror(error));
  }
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) {
    close(fd_);
  }
}

namespace {

FileDescriptor open_regular(const std::filesystem::path& path, std::uint64_t& size) {
  // Not to wait for a writer, should it be a pipe.
  const auto open_it = [&] { return open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); };
  FileDescriptor file(open_it());
  // A data set may have thousands of files, and shells allow 1,024 where the system allows more.
  if (rlimit limit{}; file.get() < 0 && errno == EMFILE && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    file = FileDescriptor(open_it());
  }
  if (file.get() < 0) {
    throw_errno("open", path);
  }
  struct stat status;
  if (fstat(file.get(), &status) != 0) {
    throw_errno("examine", path);
  }
  if (!S_ISREG(status.st_mode)) {
    throw InputError("cannot read {}: it is no regular file", path.string());
  }
  size = static_cast<std::uint64_t>(status.st_size);
  return file;
}

/// Mapped files are read from their beginning on as long as they are together no larger: more would keep the
/// opening waiting and push other things out of memory.
constexpr std::uint64_t kMostReadWhole = 256 << 20;
std::atomic<std::uint64_t> bytes_read_whole = 0;

}  // namespace

MappedFile::MappedFile(std::filesystem::path path) : path_(std::move(path)) {
  std::uint64_t size = 0;
  FileDescriptor file = open_regular(path_, size);
  if (size == 0) {  // nothing to map
    return;
  }
  void* address = mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (address == MAP_FAILED) {
    throw MachineError("cannot map {}: {}", path_.string(), std::strerror(errno));
  }
  bytes_ = {static_cast<const std::byte*>(address), size};
  file_ = std::move(file);
  watched_ = &watch(bytes_, file_.get());
  // Samples are read in random order, but all of them: start reading now. Only advice, so failing is no
  // matter.
  read_whole_ = bytes_read_whole.fetch_add(size) + size <= kMostReadWhole;
  if (read_whole_) {
    madvise(address, size, MADV_WILLNEED);
  } else {
    bytes_read_whole.fetch_sub(size);
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::move(other.file_)),
      bytes_(std::exchange(other.bytes_, {})),
      watched_(std::exchange(other.watched_, nullptr)),
      read_whole_(std::exchange(other.read_whole_, false)) {}

MappedFile::~MappedFile() {
  if (bytes_.empty()) {
    return;
  }
  unwatch(*watched_);
  munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  if (read_whole_) {
    bytes_read_whole.fetch_sub(bytes_.size());
  }
}

std::span<const std::byte> MappedFile::bytes(std::uint64_t offset, std::size_t size) const {
  if (bytes_.empty()) {
    return {};
  }
  const std::uint64_t intact = watched_->intact.load(std::memory_order_relaxed);
  if (offset + size <= intact) {
    note_mapped_read(*watched_, offset + size);
    return bytes_.subspan(offset, size);
  }
  struct stat status {};
  if (fstat(file_.get(), &status) == 0 && static_cast<std::uint64_t>(status.st_size) < bytes_.size()) {
    throw InputError("{}: was cut to {} bytes while it was in use, had {}; wanted {} at offset {}",
                     path_.string(), status.st_size, bytes_.size(), size, offset);
  }
  throw MachineError(
      "{}: could not be read behind offset {} while it was in use; it was cut and written anew, or the disk "
      "failed; wanted {} bytes at offset {}",
      path_.string(), intact, size, offset);
}

void MappedFile::will_need(std::uint64_t offset, std::uint64_t size) const {
  static const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  if (offset >= bytes_.size()) {
    return;
  }
  size = std::min(size, bytes_.size() - offset);
  const std::uint64_t begin = offset - offset % page;
  // From now on a page that was not asked for is read alone, without its neighbours.
  if (!watched_->advised.exchange(true)) {
    madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_RANDOM);
  }
  madvise(const_cast<std::byte*>(bytes_.data()) + begin, offset + size - begin, MADV_WILLNEED);
}

void will_need(std::vector<FileRange>& ranges) {
  constexpr std::uint64_t kNear = 16 << 10;  // reading on is cheaper than asking again
  std::sort(ranges.begin(), ranges.end(), [](const FileRange& a, const FileRange& b) {
    return std::tie(a.file, a.offset) < std::tie(b.file, b.offset);
  });
  for (auto first = ranges.begin(); first != ranges.end();) {
    std::uint64_t end = first->offset + first->size;
    auto last = std::next(first);
    for (; last != ranges.end() && last->file == first->file && last->offset <= end + kNear; ++last) {
      end = std::max(end, last->offset + last->size);
    }
    first->file->will_need(first->offset, end - first->offset);
    first = last;
  }
}

DataFile::DataFile(std::filesystem::path path, Reading reading) : path_(std::move(path)) {
  if (reading == Reading::map) {
    size_ = mapped_.emplace(path_).size();
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
  if (mapped_) {
    return mapped_->bytes(offset, size);
  }
  if (scratch.size() < size) {  // never shrinks, so that it is not cleared again and again
    scratch.resize(size);
  }
  for (std::size_t done = 0; done < size;) {
    const ssize_t got =
        pread(file_->get(), scratch.data() + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      throw_errno("read", path_);
    }
    if (got == 0) {
      throw InputError("{}: was cut to {} bytes while it was in use, had {}", path_.string(), offset + done,
                       size_);
    }
    done += static_cast<std::size_t>(got);
  }
  return {scratch.data(), size};
}

std::vector<std::string> lines_of(const std::filesystem::path& path) {
  const DataFile file(path, Reading::read);
  std::vector<std::byte> scratch;
  const auto bytes = file.read(0, file.size(), scratch);
  std::istringstream text(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) {
    if (line.ends_with('\r')) {
      line.pop_back();
    }
    if (!line.empty()) {
      lines.push_back(std::move(line));
    }
  }
  return lines;
}

}  // namespace millrace
