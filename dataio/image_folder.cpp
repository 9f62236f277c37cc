#include <algorithm>
#include <array>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>
#include <vector>

#include "dataio/encoding.h"
#include "dataio/file.h"
#include "dataio/formats.h"
#include "dataio/image_files.h"
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

std::unique_ptr<Dataset> open_image_folder(const fs::path& root) {
  auto files = std::make_unique<ImageFiles>("images", root);
  std::vector<std::string> classes;
  const auto add_class = [&](std::string name, const std::string& prefix,
                             const std::vector<std::string>& images) {
    for (const std::string& image : images)
      files->add(prefix + image, static_cast<std::int64_t>(classes.size()));
    classes.push_back(std::move(name));
  };
  const Listing top = list(root);
  if (top.folders.empty()) {
    if (top.images.empty()) {
      throw InputError("images: {} holds neither class folders nor JPEG or PNG files", root.string());
    }
    add_class(fs::canonical(root).filename().string(), "", top.images);
  }
  for (const std::string& name : top.folders) {
    const Listing listing = list(root / name);
    if (listing.images.empty()) {
      throw InputError("images: class folder {} holds no JPEG or PNG files{}", (root / name).string(),
                       listing.folders.empty() ? "" : "; if its subfolders are the classes, name it instead");
    }
    add_class(name, name + "/", listing.images);
  }
  files->name_classes(std::move(classes));
  return files;
}

}  // namespace

std::unique_ptr<Dataset> open_images(const std::string& where, const OpenOptions& options) {
  if (std::error_code error; fs::is_regular_file(where, error)) {
    if (where.ends_with(".tar")) return open_image_tar(where, options);
    throw InputError("images: {} is a file, expected a folder or a .tar file", where);
  }
  return open_image_folder(where);
}

}  // namespace millrace
