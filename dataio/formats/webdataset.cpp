#include <algorithm>
#include <cctype>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "dataio/formats/formats.h"
#include "dataio/formats/parts.h"
#include "dataio/formats/tar.h"
#include "dataio/glob.h"

namespace millrace {

namespace {

/// A member's name cut at the first dot behind its folder: "a/7.seg.PNG" is key "a/7", ending "seg.png".
struct MemberName {
  std::string key, ending;
};

MemberName split_name(const std::string& name) {
  const std::size_t base = name.rfind('/') + 1;  // 0 when there is no folder
  const std::size_t dot = name.find('.', base);
  if (dot == std::string::npos || dot == base) {  // no ending, or hidden
    return {};
  }
  MemberName split{name.substr(0, dot), name.substr(dot + 1)};
  std::transform(split.ending.begin(), split.ending.end(), split.ending.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return split;
}

/// Consecutive members of one key become a sample.
class Collector {
 public:
  explicit Collector(const DataFile& file) : file_(file) {}

  void add(const TarMember& member) {
    const MemberName name = split_name(member.name);
    if (name.key.empty()) {
      return;
    }
    if (name.key != key_) {
      finish();
      key_ = name.key;
    }
    if (name.ending == "jpg" || name.ending == "jpeg" || name.ending == "png") {
      keep_one(image_, member, "images");
    } else if (name.ending == "cls") {
      keep_one(cls_, member, "labels");
    } else if (name.ending == "json") {
      keep_one(json_, member, "descriptions");
    }
  }

  /// Ends the sample that was begun. Without an image it is none, unless it is labelled.
  void finish() {
    if (image_.header == kNone && cls_.header != kNone) {
      throw InputError("tar: {} has no image beside it, expected jpg, jpeg or png right before or after",
                       where(cls_));
    }
    if (image_.header != kNone) {
      if (cls_.header == kNone && json_.header == kNone) {
        throw InputError(
            "tar: {} has no label, expected a .cls or .json file of that name right before or after",
            where(image_));
      }
      if (image_.size > std::numeric_limits<std::uint32_t>::max()) {
        throw InputError("tar: {} has {} bytes, too many for an image", where(image_), image_.size);
      }
      const auto size = static_cast<std::uint32_t>(image_.size);
      index_.entries.push_back({image_.offset, size, 0, size, label()});
    }
    image_.header = cls_.header = json_.header = kNone;
  }

  PartIndex take() { return std::move(index_); }

 private:
  static constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();

  std::string where(const TarMember& member) const {
    return fmt::format("{} at offset {} ({})", file_.path().string(), member.header, member.name);
  }

  void keep_one(TarMember& place, const TarMember& member, std::string_view what) {
    if (place.header != kNone) {
      throw InputError("tar: {} follows {}: two {} of one sample, expected one", where(member), place.name,
                       what);
    }
    place = member;
  }

  std::int32_t label() {
    const TarMember& member = cls_.header != kNone ? cls_ : json_;
    constexpr std::uint64_t kMost = 1 << 20;
    if (member.size > kMost) {
      throw InputError("tar: {} has {} bytes, expected a label in at most {}", where(member), member.size,
                       kMost);
    }
    const auto bytes = file_.read(member.offset, member.size, scratch_);
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const auto value = cls_.header != kNone ? from_cls(text) : from_json(text);
    if (!value) {
      throw InputError(
          "tar: {} tells no label, expected {}", where(member),
          cls_.header != kNone ? "a whole number" : "a JSON object with a whole number \"label\" or \"cls\"");
    }
    return checked_label(*value, "tar: " + where(member));
  }

  static std::optional<std::int64_t> from_cls(std::string_view text) {
    constexpr std::string_view kSpace = " \t\r\n";
    text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
    text = text.substr(0, text.find_last_not_of(kSpace) + 1);
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
  }

  static std::optional<std::int64_t> from_json(std::string_view text) {
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object()) {
      return std::nullopt;
    }
    for (const char* key : {"label", "cls"}) {
      if (const auto found = json.find(key); found != json.end() && found->is_number_integer()) {
        return found->get<std::int64_t>();
      }
    }
    return std::nullopt;
  }

  const DataFile& file_;
  std::vector<std::byte> scratch_;
  std::string key_;
  TarMember image_{.header = kNone}, cls_{.header = kNone}, json_{.header = kNone};
  PartIndex index_;
};

PartIndex index_samples(const DataFile& file) {
  TarReader tar(file);
  Collector collector(file);
  for (TarMember member; tar.next(member);) {
    collector.add(member);
  }
  collector.finish();
  return collector.take();
}

}  // namespace

std::unique_ptr<Dataset> open_webdataset(const std::string& pattern, const OpenOptions& options) {
  const auto paths = files_named(pattern);
  PartFormat format{
      .kind = "tar",
      .recipe = "tar",
      .build = index_samples,
      .name = [](const DataFile& file, const PartEntry& entry) { return tar_name_at(file, entry.offset); }};
  return open_parts(std::move(format), paths, classes_beside(paths[0]), options.reading);
}

}  // namespace millrace
