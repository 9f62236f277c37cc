#include <algorithm>
#include <limits>
#include <map>

#include "base/error.h"
#include "dataio/formats/encoding.h"
#include "dataio/formats/formats.h"
#include "dataio/formats/parts.h"
#include "dataio/formats/tar.h"

namespace millrace {

namespace {

/// The folder of a member, "" at the top; nothing for hidden files and those in hidden folders.
std::optional<std::string> visible_folder(const std::string& name) {
  if (name.starts_with('.') || name.find("/.") != std::string::npos) {
    return std::nullopt;
  }
  const std::size_t slash = name.rfind('/');
  return slash == std::string::npos ? "" : name.substr(0, slash);
}

bool is_image(const DataFile& file, const TarMember& member, std::vector<std::byte>& scratch) {
  if (has_image_ending(member.name)) {
    return true;
  }
  return encoding_of(file.read(member.offset, std::min<std::size_t>(member.size, 8), scratch)).has_value();
}

/// How much two folders' names have in common, in whole steps: 2 for "a/b" and "a/c".
std::size_t common_prefix(const std::string& a, const std::string& b) {
  std::size_t common = 0;
  for (std::size_t i = 0;; ++i) {
    const bool a_ends = i == a.size(), b_ends = i == b.size();
    if ((a_ends || a[i] == '/') && (b_ends || b[i] == '/')) {
      common = i + 1;
    }
    if (a_ends || b_ends || a[i] != b[i]) {
      return common;
    }
  }
}

/// Where the names of the classes begin in those of the folders: behind what all have in common.
std::size_t class_begin(const std::map<std::string, std::int32_t>& folders) {
  const std::string& first = folders.begin()->first;
  if (folders.size() == 1) {
    return first.rfind('/') + 1;
  }
  std::size_t common = first.size() + 1;
  for (const auto& [folder, number] : folders) {
    common = std::min(common, common_prefix(first, folder));
  }
  return common;
}

/// Folders, in the order of their names' bytes, are the classes: named from where they differ on.
PartIndex index_images(const DataFile& file) {
  PartIndex index;
  std::map<std::string, std::int32_t> folders;  // numbered as they come, at first
  TarReader tar(file);
  std::vector<std::byte> scratch;
  for (TarMember member; tar.next(member);) {
    const auto folder = visible_folder(member.name);
    if (!folder || !is_image(file, member, scratch)) {
      continue;
    }
    if (member.size > std::numeric_limits<std::uint32_t>::max()) {
      throw InputError("images: {} at offset {} ({}) has {} bytes, too many for an image",
                       file.path().string(), member.header, member.name, member.size);
    }
    const auto next =
        checked_label(static_cast<std::int64_t>(folders.size()), "images: " + file.path().string());
    const auto size = static_cast<std::uint32_t>(member.size);
    index.entries.push_back({member.offset, size, 0, size, folders.emplace(*folder, next).first->second});
  }
  if (folders.empty()) {
    return index;
  }
  std::vector<std::int32_t> label_of(folders.size());
  const std::size_t begin = class_begin(folders);
  std::int32_t label = 0;
  for (const auto& [folder, number] : folders) {
    label_of[static_cast<std::size_t>(number)] = label;
    index.class_names[label++] = folder.size() > begin ? folder.substr(begin) : ".";
  }
  if (folders.begin()->first.empty() && folders.size() == 1) {
    index.class_names[0] = file.path().stem().string();
  }
  for (PartEntry& entry : index.entries) {
    entry.label = label_of[static_cast<std::size_t>(entry.label)];
  }
  return index;
}

}  // namespace

std::unique_ptr<Dataset> open_image_tar(const std::string& path, const OpenOptions& options) {
  PartFormat format{
      .kind = "images",
      .recipe = "images",
      .build = index_images,
      .name = [](const DataFile& file, const PartEntry& entry) { return tar_name_at(file, entry.offset); }};
  return open_parts(std::move(format), {path}, {}, options.reading);
}

}  // namespace millrace
