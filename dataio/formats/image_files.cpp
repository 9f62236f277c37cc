#include "dataio/formats/image_files.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/hash.h"
#include "dataio/formats/encoding.h"

namespace millrace {

ImageFiles::ImageFiles(std::string kind, std::filesystem::path root)
    : kind_(std::move(kind)),
      root_(std::move(root)),
      directory_(open(root_.empty() ? "." : root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (directory_.get() < 0) {
    throw_errno("open", root_);
  }
}

void ImageFiles::add(std::string_view name, std::int64_t label) {
  starts_.push_back(names_.size());
  names_.append(name).push_back('\0');
  labels_.push_back(static_cast<std::int32_t>(label));
}

void ImageFiles::renumber(const std::vector<std::int32_t>& labels) {
  for (std::int32_t& label : labels_) {
    label = labels[static_cast<std::size_t>(label)];
  }
}

Sample ImageFiles::read(std::int64_t index, std::vector<std::byte>& scratch) const {
  // Not to wait for a writer, should it be a pipe.
  const FileDescriptor file(openat(directory_.get(), name(index), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) {
    throw_errno("open", describe(index));
  }
  const auto bytes = read_all(file.get(), index, scratch);
  const auto encoding = encoding_of(bytes);
  if (!encoding) {
    throw InputError("{}: {} is neither a JPEG nor a PNG file ({} bytes); remove it or convert it", kind_,
                     describe(index), bytes.size());
  }
  return {.bytes = bytes, .encoding = *encoding, .label = label(index)};
}

std::uint64_t ImageFiles::fingerprint(int version) const {
  if (version != 1) {
    return Dataset::fingerprint(version);
  }
  Hash hash;
  hash.add(size()).add(names_);
  add_labels(hash);
  return hash.value();
}

void ImageFiles::add_known(Hash& hash) const {
  if (std::ranges::none_of(starts_, [&](std::size_t start) { return names_[start] == '/'; })) {
    hash.add(names_);
  } else {
    for (std::int64_t i = 0; i < size(); ++i) {  // of an absolute path, as lists may have, only the last part
      const std::string_view path = name(i);
      hash.add(path.starts_with('/') ? path.substr(path.rfind('/') + 1) : path);
    }
  }
  add_labels(hash);
}

std::span<const std::byte> ImageFiles::read_all(int file, std::int64_t index,
                                                std::vector<std::byte>& scratch) const {
  struct stat status;
  if (fstat(file, &status) != 0) {
    throw_errno("examine", describe(index));
  }
  if (!S_ISREG(status.st_mode)) {
    throw InputError("{}: {} is no regular file", kind_, describe(index));
  }
  if (status.st_size > kMostEncodedBytes) {
    throw InputError("{}: {} has {} bytes, expected an image of at most {}; shrink or remove it", kind_,
                     describe(index), status.st_size, kMostEncodedBytes);
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  if (scratch.size() < size) {  // never shrinks, so that it is not cleared again and again
    scratch.resize(size);
  }
  for (std::size_t done = 0; done < size;) {
    const ssize_t got = ::read(file, scratch.data() + done, size - done);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      throw_errno("read", describe(index));
    }
    if (got == 0) {
      throw InputError("{}: {} was cut from {} to {} bytes while it was read", kind_, describe(index), size,
                       done);
    }
    done += static_cast<std::size_t>(got);
  }
  return {scratch.data(), size};
}

}  // namespace millrace
