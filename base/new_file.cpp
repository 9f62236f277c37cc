#include "base/new_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include "base/error.h"

namespace millrace {

NewFile::NewFile(const std::filesystem::path& path) : path_(path) {
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) {
    path_ = std::filesystem::canonical(path, ignored);
    if (!std::filesystem::is_regular_file(path_, ignored)) {
      throw MachineError("cannot write {}: it is not a regular file", path.string());
    }
  }
  beside_ = path_.string() + fmt::format(".part{}", ::getpid());
  // Without a name until it is whole, so that nothing is left of it should the process be killed.
  descriptor_ = ::open(folder().c_str(), O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666);
  is_named_ = descriptor_ < 0;
  if (is_named_) {  // not every file system can do that
    descriptor_ = ::open(beside_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  }
  if (descriptor_ < 0) {
    fail();
  }
}

std::filesystem::path NewFile::folder() const { return path_.has_parent_path() ? path_.parent_path() : "."; }

NewFile::~NewFile() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
  if (is_named_) {
    ::unlink(beside_.c_str());
  }
}

void NewFile::write(const void* data, std::size_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::write(descriptor_, at, bytes);
    if (done < 0 && errno == EINTR) {
      continue;
    }
    if (done <= 0) {
      fail();
    }
    at += done;
    bytes -= static_cast<std::size_t>(done);
  }
}

void NewFile::commit() {
  if (::fsync(descriptor_) != 0) {
    fail();
  }
  if (!is_named_) {
    ::unlink(beside_.c_str());  // of a process that was killed
    const std::string here = fmt::format("/proc/self/fd/{}", descriptor_);
    if (::linkat(AT_FDCWD, here.c_str(), AT_FDCWD, beside_.c_str(), AT_SYMLINK_FOLLOW) != 0) {
      fail();
    }
    is_named_ = true;
  }
  if (::close(std::exchange(descriptor_, -1)) != 0 || ::rename(beside_.c_str(), path_.c_str()) != 0) {
    fail();
  }
  is_named_ = false;
  // The new name is on disk once its folder is; where that cannot be asked for, the file is still whole.
  if (const int directory = ::open(folder().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); directory >= 0) {
    ::fsync(directory);
    ::close(directory);
  }
}

void NewFile::fail() const {
  const int reason = errno;
  throw MachineError("cannot write {}: {}", path_.string(), std::strerror(reason));
}

}  // namespace millrace
