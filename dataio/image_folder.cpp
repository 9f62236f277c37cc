#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "dataio/encoding.h"
#include "dataio/file.h"
#include "dataio/formats.h"
#include "dataio/hash.h"
#include "tensor/error.h"

namespace millrace {

namespace {

namespace fs = std::filesystem;

/// By its ending; else, for regular files named otherwise, by its first bytes.
bool is_image(const fs::directory_entry& entry) {
  if (has_image_ending(entry.path().native())) return true;
  if (std::error_code error; !entry.is_regular_file(error)) return false;
  const FileDescriptor file(open(entry.path().c_str(), O_RDONLY | O_CLOEXEC));
  std::array<std::byte, 8> start{};
  const ssize_t got = file.get() < 0 ? -1 : ::read(file.get(), start.data(), start.size());
  if (got < 0) throw_errno("read", entry.path());
  return encoding_of(std::span(start).first(static_cast<std::size_t>(got))).has_value();
}

struct Listing {
  std::vector<std::string> folders, images;  // names, sorted
};

Listing list(const fs::path& folder) {
  Listing listing;
  std::error_code error;
  fs::directory_iterator entries(folder, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    std::string name = entries->path().filename().string();
    if (name.front() == '.') continue;
    if (std::error_code unknown; entries->is_directory(unknown)) {
      listing.folders.push_back(std::move(name));
    } else if (is_image(*entries)) {
      listing.images.push_back(std::move(name));
    }
  }
  if (error) throw InputError("images: cannot list {}: {}", folder.string(), error.message());
  std::sort(listing.folders.begin(), listing.folders.end());
  std::sort(listing.images.begin(), listing.images.end());
  return listing;
}

class ImageFolder final : public Dataset {
 public:
  explicit ImageFolder(const fs::path& root)
      : root_(root), directory_(open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (directory_.get() < 0) throw_errno("open", root_);
    const Listing top = list(root_);
    if (top.folders.empty()) {
      if (top.images.empty()) {
        throw InputError("images: {} holds neither class folders nor JPEG or PNG files", root_.string());
      }
      add_class(fs::canonical(root_).filename().string(), "", top.images);
    }
    for (const std::string& name : top.folders) {
      const Listing listing = list(root_ / name);
      if (listing.images.empty()) {
        throw InputError(
            "images: class folder {} holds no JPEG or PNG files{}", (root_ / name).string(),
            listing.folders.empty() ? "" : "; if its subfolders are the classes, name it instead");
      }
      add_class(name, name + "/", listing.images);
    }
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(starts_.size()); }
  const DatasetInfo& info() const override { return info_; }

  Sample read(std::int64_t index, std::vector<std::byte>& scratch) const override {
    // Not to wait for a writer, should it be a pipe.
    const FileDescriptor file(openat(directory_.get(), name(index), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (file.get() < 0) throw_errno("open", describe(index));
    const auto bytes = read_all(file.get(), index, scratch);
    const auto encoding = encoding_of(bytes);
    if (!encoding) {
      throw InputError("images: {} is neither a JPEG nor a PNG file ({} bytes); remove it or convert it",
                       describe(index), bytes.size());
    }
    return {.bytes = bytes, .encoding = *encoding, .label = label(index)};
  }

  std::int64_t label(std::int64_t index) const override {
    return std::upper_bound(ends_.begin(), ends_.end(), index) - ends_.begin();
  }

  std::string describe(std::int64_t index) const override { return (root_ / name(index)).string(); }

  std::uint64_t fingerprint() const override { return Hash().add(size()).add(names_).value(); }

 private:
  void add_class(std::string name, const std::string& prefix, const std::vector<std::string>& files) {
    for (const std::string& file : files) {
      starts_.push_back(names_.size());
      names_.append(prefix).append(file).push_back('\0');
    }
    info_.classes.push_back(std::move(name));
    ends_.push_back(size());
  }

  /// Relative to the root.
  const char* name(std::int64_t index) const {
    return names_.data() + starts_[static_cast<std::size_t>(index)];
  }

  std::span<const std::byte> read_all(int file, std::int64_t index, std::vector<std::byte>& scratch) const {
    struct stat status;
    if (fstat(file, &status) != 0) throw_errno("examine", describe(index));
    if (!S_ISREG(status.st_mode)) throw InputError("images: {} is no regular file", describe(index));
    const auto size = static_cast<std::size_t>(status.st_size);
    if (scratch.size() < size)
      scratch.resize(size);  // never shrinks, so that it is not cleared again and again
    for (std::size_t done = 0; done < size;) {
      const ssize_t got = ::read(file, scratch.data() + done, size - done);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw_errno("read", describe(index));
      if (got == 0)
        throw InputError("images: {} was cut from {} to {} bytes while it was read", describe(index), size,
                         done);
      done += static_cast<std::size_t>(got);
    }
    return {scratch.data(), size};
  }

  fs::path root_;
  FileDescriptor directory_;
  DatasetInfo info_;
  // Millions of names take one block: each ends with a zero byte, starts_ says where it begins.
  std::string names_;
  std::vector<std::size_t> starts_;
  std::vector<std::int64_t> ends_;  // of each class, one past its last image
};

}  // namespace

std::unique_ptr<Dataset> open_images(const std::string& where, const OpenOptions& options) {
  if (std::error_code error; where.ends_with(".tar") && fs::is_regular_file(where, error)) {
    return open_image_tar(where, options);
  }
  return std::make_unique<ImageFolder>(where);
}

}  // namespace millrace
