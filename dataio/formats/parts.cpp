#include "dataio/formats/parts.h"

#include <algorithm>

#include "base/error.h"
#include "base/hash.h"
#include "dataio/formats/encoding.h"

namespace millrace {

namespace {

namespace fs = std::filesystem;

class Parts final : public Dataset {
 public:
  Parts(PartFormat format, const std::vector<fs::path>& paths, std::vector<std::string> class_names,
        Reading reading)
      : format_(std::move(format)) {
    std::map<std::int32_t, std::string> told;
    for (const fs::path& path : paths) {
      DataFile file(path, reading);
      PartIndex index = kept_index(file, format_.recipe, format_.build);
      told.merge(index.class_names);
      ends_.push_back(size() + static_cast<std::int64_t>(index.entries.size()));
      parts_.push_back({std::move(file), std::move(index.entries)});
    }
    if (size() == 0) {
      throw InputError("{}: {} holds no samples", format_.kind,
                       paths.size() == 1
                           ? paths[0].string()
                           : fmt::format("none of {} files from {} on", paths.size(), paths[0].string()));
    }
    const std::int32_t most = highest_label(class_names.size());
    for (std::int32_t label = static_cast<std::int32_t>(class_names.size()); label <= most; ++label) {
      const auto name = told.find(label);
      class_names.push_back(name == told.end() ? std::to_string(label) : name->second);
    }
    info_.classes = std::move(class_names);
  }

  std::int64_t size() const override { return ends_.empty() ? 0 : ends_.back(); }
  const DatasetInfo& info() const override { return info_; }

  Sample read(std::int64_t index, std::vector<std::byte>& scratch) const override {
    const auto [part, entry] = find(index);
    if (entry.image_size > kMostEncodedBytes) {
      throw InputError("{}: {} has {} bytes, expected an image of at most {}; shrink or remove it",
                       format_.kind, describe(index), entry.image_size, kMostEncodedBytes);
    }
    const auto bytes = part.file.read(entry.offset, entry.size, scratch);
    if (format_.check) {
      format_.check(part.file, entry, bytes);
    }
    const auto image = bytes.subspan(entry.image_begin, entry.image_size);
    const auto encoding = encoding_of(image);
    if (!encoding) {
      throw InputError("{}: {} is neither a JPEG nor a PNG file ({} bytes)", format_.kind, describe(index),
                       image.size());
    }
    return {.bytes = image, .encoding = *encoding, .label = entry.label};
  }

  std::int64_t label(std::int64_t index) const override { return find(index).entry.label; }

  std::string describe(std::int64_t index) const override {
    const auto [part, entry] = find(index);
    std::string where = fmt::format("{} at offset {}", part.file.path().string(), entry.offset);
    if (format_.name) {
      where += fmt::format(" ({})", format_.name(part.file, entry));
    }
    return where;
  }

  void will_need(std::span<const std::int64_t> indices) const override {
    std::vector<FileRange> ranges;
    for (const std::int64_t index : indices) {
      const auto [part, entry] = find(index);
      if (const MappedFile* file = part.file.advised()) {
        ranges.push_back({file, entry.offset, entry.size});
      }
    }
    millrace::will_need(ranges);
  }

  std::uint64_t fingerprint(int version) const override {
    if (version != 1) {
      return Dataset::fingerprint(version);
    }
    Hash hash;
    hash.add(format_.kind).add(size());
    for (const Part& part : parts_) {
      for (const PartEntry& entry : part.entries) {
        hash.add(static_cast<std::int64_t>(entry.offset)).add(entry.image_size).add(entry.label);
      }
    }
    for (const std::string& name : info_.classes) {
      hash.add(name);
    }
    return hash.value();
  }

 private:
  struct Part {
    DataFile file;
    std::vector<PartEntry> entries;
  };
  struct Place {
    const Part& part;
    const PartEntry& entry;
  };

  /// Not where in which part the samples lie.
  void add_known(Hash& hash) const override {
    for (const Part& part : parts_) {
      for (const PartEntry& entry : part.entries) {
        hash.add(entry.image_size).add(entry.label);
      }
    }
  }

  Place find(std::int64_t index) const {
    const auto end = std::upper_bound(ends_.begin(), ends_.end(), index);
    const Part& part = parts_[static_cast<std::size_t>(end - ends_.begin())];
    return {part, *(part.entries.end() - (*end - index))};
  }

  /// @throws InputError when `named` classes are not enough; 0 means that any label will do.
  std::int32_t highest_label(std::size_t named) const {
    std::int32_t most = 0;
    for (const Part& part : parts_) {
      for (const PartEntry& entry : part.entries) {
        if (named > 0 && static_cast<std::size_t>(entry.label) >= named) {
          throw InputError("{}: {} at offset {} has the label {}, but classes.txt beside it names {} classes",
                           format_.kind, part.file.path().string(), entry.offset, entry.label, named);
        }
        most = std::max(most, entry.label);
      }
    }
    return most;
  }

  PartFormat format_;
  std::vector<Part> parts_;
  std::vector<std::int64_t> ends_;  // of each part, one past its last sample
  DatasetInfo info_;
};

}  // namespace

std::unique_ptr<Dataset> open_parts(PartFormat format, const std::vector<fs::path>& paths,
                                    std::vector<std::string> class_names, Reading reading) {
  return std::make_unique<Parts>(std::move(format), paths, std::move(class_names), reading);
}

std::vector<std::string> classes_beside(const fs::path& file) {
  const fs::path names = file.parent_path() / "classes.txt";
  std::error_code error;
  return fs::exists(names, error) ? lines_of(names) : std::vector<std::string>();
}

}  // namespace millrace
