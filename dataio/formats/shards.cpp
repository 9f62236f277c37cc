#include "dataio/formats/shards.h"

#include <algorithm>

#include "base/error.h"
#include "base/hash.h"
#include "dataio/formats/encoding.h"

namespace millrace {

namespace {

namespace fs = std::filesystem;

struct Shard {
  DataFile file;
  std::vector<ShardEntry> entries;
};

class Shards final : public Dataset {
 public:
  Shards(ShardFormat format, const std::vector<fs::path>& paths, std::vector<std::string> class_names,
         Reading reading)
      : format_(std::move(format)) {
    std::map<std::int32_t, std::string> told;
    for (const fs::path& path : paths) {
      DataFile file(path, reading);
      ShardIndex index = kept_index(file, format_.recipe, format_.build);
      told.merge(index.class_names);
      ends_.push_back(size() + static_cast<std::int64_t>(index.entries.size()));
      shards_.push_back({std::move(file), std::move(index.entries)});
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
    const auto [shard, entry] = find(index);
    if (entry.image_size > kMostEncodedBytes) {
      throw InputError("{}: {} has {} bytes, expected an image of at most {}; shrink or remove it",
                       format_.kind, describe(index), entry.image_size, kMostEncodedBytes);
    }
    const auto bytes = shard.file.read(entry.offset, entry.size, scratch);
    if (format_.check) {
      format_.check(shard.file, entry, bytes);
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
    const auto [shard, entry] = find(index);
    std::string where = fmt::format("{} at offset {}", shard.file.path().string(), entry.offset);
    if (format_.name) {
      where += fmt::format(" ({})", format_.name(shard.file, entry));
    }
    return where;
  }

  void will_need(std::span<const std::int64_t> indices) const override {
    std::vector<FileRange> ranges;
    for (const std::int64_t index : indices) {
      const auto [shard, entry] = find(index);
      if (const MappedFile* file = shard.file.advised()) {
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
    for (const Shard& shard : shards_) {
      for (const ShardEntry& entry : shard.entries) {
        hash.add(static_cast<std::int64_t>(entry.offset)).add(entry.image_size).add(entry.label);
      }
    }
    for (const std::string& name : info_.classes) {
      hash.add(name);
    }
    return hash.value();
  }

 private:
  /// Not where in which shard the samples lie.
  void add_known(Hash& hash) const override {
    for (const Shard& shard : shards_) {
      for (const ShardEntry& entry : shard.entries) {
        hash.add(entry.image_size).add(entry.label);
      }
    }
  }

  struct Place {
    const Shard& shard;
    const ShardEntry& entry;
  };
  Place find(std::int64_t index) const {
    const auto end = std::upper_bound(ends_.begin(), ends_.end(), index);
    const Shard& shard = shards_[static_cast<std::size_t>(end - ends_.begin())];
    return {shard, *(shard.entries.end() - (*end - index))};
  }

  /// @throws InputError when `named` classes are not enough; 0 means that any label will do.
  std::int32_t highest_label(std::size_t named) const {
    std::int32_t most = 0;
    for (const Shard& shard : shards_) {
      for (const ShardEntry& entry : shard.entries) {
        if (named > 0 && static_cast<std::size_t>(entry.label) >= named) {
          throw InputError("{}: {} at offset {} has the label {}, but classes.txt beside it names {} classes",
                           format_.kind, shard.file.path().string(), entry.offset, entry.label, named);
        }
        most = std::max(most, entry.label);
      }
    }
    return most;
  }

  ShardFormat format_;
  std::vector<Shard> shards_;
  std::vector<std::int64_t> ends_;  // of each shard, one past its last sample
  DatasetInfo info_;
};

}  // namespace

std::unique_ptr<Dataset> open_shards(ShardFormat format, const std::vector<fs::path>& paths,
                                     std::vector<std::string> class_names, Reading reading) {
  return std::make_unique<Shards>(std::move(format), paths, std::move(class_names), reading);
}

std::vector<std::string> classes_beside(const fs::path& file) {
  const fs::path names = file.parent_path() / "classes.txt";
  std::error_code error;
  return fs::exists(names, error) ? lines_of(names) : std::vector<std::string>();
}

}  // namespace millrace
