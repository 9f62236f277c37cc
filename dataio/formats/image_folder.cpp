#include <algorithm>
#include <array>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>
#include <vector>

#include "base/error.h"
#include "dataio/file.h"
#include "dataio/formats/encoding.h"
#include "dataio/formats/formats.h"
#include "dataio/formats/image_files.h"

namespace millrace {

namespace {

namespace fs = std::filesystem;

/// By its ending; else, for regular files named otherwise, by its first bytes.
bool is_image(const fs::directory_entry& entry) {
  if (has_image_ending(entry.path().native())) {
    return true;
  }
  if (std::error_code error; !entry.is_regular_file(error)) {
    return false;
  }
  const FileDescriptor file(open(entry.path().c_str(), O_RDONLY | O_CLOEXEC));
  std::array<std::byte, 8> start{};
  const ssize_t got = file.get() < 0 ? -1 : ::read(file.get(), start.data(), start.size());
  if (got < 0) {
    throw_errno("read", entry.path());
  }
  return encoding_of(std::span(start).first(static_cast<std::size_t>(got))).has_value();
}

struct Listing {
  std::vector<std::string> folders, images;  // names from the listed folder on, sorted
};

/// What is visible in `folder` and, where `deep`, in the folders below, but for links to folders.
Listing list(const fs::path& folder, bool deep) {
  Listing listing;
  const std::size_t name_begin = (folder / "").native().size();
  std::error_code error;
  fs::recursive_directory_iterator entries(folder, error);
  for (; !error && entries != fs::recursive_directory_iterator(); entries.increment(error)) {
    const bool hidden = entries->path().filename().native().front() == '.';
    if (hidden || !deep) {
      entries.disable_recursion_pending();
    }
    if (hidden) {
      continue;
    }
    std::string name = entries->path().native().substr(name_begin);
    if (std::error_code unknown; entries->is_directory(unknown)) {
      listing.folders.push_back(std::move(name));
    } else if (is_image(*entries)) {
      listing.images.push_back(std::move(name));
    } else if (unknown) {  // such as a link to a class folder that is not mounted
      throw InputError("images: cannot examine {}: {}; mend or remove it", entries->path().string(),
                       unknown.message());
    }
  }
  if (error) {
    throw InputError("images: cannot list {}: {}", folder.string(), error.message());
  }
  std::sort(listing.folders.begin(), listing.folders.end());
  std::sort(listing.images.begin(), listing.images.end());
  return listing;
}

std::unique_ptr<Dataset> open_image_folder(const fs::path& root) {
  auto files = std::make_unique<ImageFiles>("images", root);
  std::vector<std::string> classes;
  const auto add_class = [&](std::string name, const std::string& prefix,
                             const std::vector<std::string>& images) {
    for (const std::string& image : images) {
      files->add(prefix + image, static_cast<std::int64_t>(classes.size()));
    }
    classes.push_back(std::move(name));
  };
  const Listing top = list(root, false);
  if (!top.folders.empty() && !top.images.empty()) {
    throw InputError("images: {} lies beside class folders; move it into one, or out of {}",
                     (root / top.images[0]).string(), root.string());
  }
  if (top.folders.empty()) {
    if (top.images.empty()) {
      throw InputError("images: {} holds neither class folders nor JPEG or PNG files", root.string());
    }
    add_class(fs::canonical(root).filename().string(), "", top.images);
  }
  for (const std::string& name : top.folders) {
    const std::vector<std::string> images = list(root / name, true).images;
    // With none but in the folders below it may be "train" beside "test".
    if (std::ranges::all_of(images, [](const std::string& image) { return image.find('/') != image.npos; })) {
      throw InputError(
          "images: class folder {} holds no JPEG or PNG files{}", (root / name).string(),
          images.empty() ? "; remove it" : "; if its subfolders are the classes, name it instead");
    }
    add_class(name, name + "/", images);
  }
  files->name_classes(std::move(classes));
  return files;
}

}  // namespace

std::unique_ptr<Dataset> open_images(const std::string& where, const OpenOptions& options) {
  if (std::error_code error; fs::is_regular_file(where, error)) {
    if (where.ends_with(".tar")) {
      return open_image_tar(where, options);
    }
    throw InputError("images: {} is a file, expected a folder or a .tar file", where);
  }
  return open_image_folder(where);
}

}  // namespace millrace
