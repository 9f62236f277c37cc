#include "dataio/formats/tfrecord.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <limits>

#include "base/crc32c.h"
#include "base/error.h"
#include "dataio/formats/formats.h"
#include "dataio/formats/parts.h"
#include "dataio/glob.h"
#include "proto/example.pb.h"

namespace millrace {

namespace {

constexpr std::size_t kChecksum = 4, kLength = 8, kHeader = kLength + kChecksum;
constexpr std::uint64_t kMostBytes = std::numeric_limits<std::int32_t>::max();  // what Protocol Buffers take

template <typename T>
T read_number(std::span<const std::byte> bytes) {  // little-endian, as this machine is (part_index.cpp)
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

std::string where(const DataFile& file, std::uint64_t offset) {
  return fmt::format("tfrecord: {} at offset {}", file.path().string(), offset);
}

/// The checksum of `bytes`, rotated and shifted as TensorFlow stores it.
std::uint32_t masked_checksum(std::span<const std::byte> bytes) {
  const std::uint32_t sum = crc32c(bytes);
  return (sum >> 15 | sum << 17) + 0xA282EAD8u;
}

/// Whether the checksum behind `size` bytes is theirs.
bool checksum_holds(std::span<const std::byte> bytes, std::size_t size) {
  return masked_checksum(bytes.first(size)) == read_number<std::uint32_t>(bytes.subspan(size));
}

void check(const DataFile& file, std::uint64_t offset, std::span<const std::byte> bytes, std::size_t size,
           std::string_view what) {
  if (checksum_holds(bytes, size)) {
    return;
  }
  const bool gzipped = offset == 0 && bytes[0] == std::byte{0x1F} && bytes[1] == std::byte{0x8B};
  throw InputError("{}: the checksum of its {} is {:#010x}, stored is {:#010x}; {}", where(file, offset),
                   what, masked_checksum(bytes.first(size)), read_number<std::uint32_t>(bytes.subspan(size)),
                   gzipped ? "unpack the file, it is gzipped" : "it is damaged");
}

/// Makes an entry of each record's example.
class Indexer {
 public:
  Indexer(const DataFile& file, const TfrecordFeatures& features) : file_(file), features_(features) {}

  PartIndex run() {
    std::vector<std::byte> scratch;
    for (std::uint64_t at = 0; at < file_.size();) {
      const std::uint64_t left = file_.size() - at;
      if (left < kHeader) {
        throw InputError("{}: it is cut, the record's header has {} bytes, {} are left", where(file_, at),
                         kHeader, left);
      }
      const auto header = file_.read(at, kHeader, scratch);
      check(file_, at, header, kLength, "length");
      const auto length = read_number<std::uint64_t>(header);
      if (left - kHeader < kChecksum || length > left - kHeader - kChecksum) {
        throw InputError("{}: it is cut, the record has {} bytes and a checksum, {} are left",
                         where(file_, at), length, left - kHeader);
      }
      const std::uint64_t size = kHeader + length + kChecksum;
      if (size > kMostBytes) {
        throw InputError("{}: a record of {} bytes is too large", where(file_, at), length);
      }
      const auto record = file_.read(at, size, scratch);
      if (checksum_holds(record.subspan(kHeader), length)) {
        add(at, record);
      } else {  // one bad sample, to be named when it is read; the others can be used
        index_.entries.push_back({at, static_cast<std::uint32_t>(size)});
      }
      at += size;
    }
    return std::move(index_);
  }

 private:
  void add(std::uint64_t at, std::span<const std::byte> record) {
    const auto data = record.subspan(kHeader, record.size() - kHeader - kChecksum);
    proto::Example example;
    if (!example.ParseFromArray(data.data(), static_cast<int>(data.size()))) {
      throw InputError("{}: its data are no tf.train.Example", where(file_, at));
    }
    const auto& all = example.features().feature();
    const proto::Feature& image = feature(at, all, features_.image);
    const proto::Feature& label = feature(at, all, features_.label);
    if (image.bytes_list().value_size() != 1 || image.bytes_list().value(0).empty()) {
      throw InputError("{}: the feature of its image holds {} values of bytes, expected one",
                       where(file_, at), image.bytes_list().value_size());
    }
    if (label.int64_list().value_size() != 1) {
      throw InputError("{}: the feature of its label holds {} whole numbers, expected one", where(file_, at),
                       label.int64_list().value_size());
    }
    // Wherever these bytes are found first, they are the image's.
    const std::string& bytes = image.bytes_list().value(0);
    const auto* found =
        static_cast<const std::byte*>(memmem(record.data(), record.size(), bytes.data(), bytes.size()));
    const std::int32_t checked = checked_label(label.int64_list().value(0), where(file_, at));
    index_.entries.push_back({at, static_cast<std::uint32_t>(record.size()),
                              static_cast<std::uint32_t>(found - record.data()),
                              static_cast<std::uint32_t>(bytes.size()), checked});
    if (const proto::Feature* text = find(all, features_.text);
        text != nullptr && text->bytes_list().value_size() == 1) {
      index_.class_names.emplace(checked, text->bytes_list().value(0));
    }
  }

  using Features = google::protobuf::RepeatedPtrField<proto::NamedFeature>;

  static const proto::Feature* find(const Features& all, const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      const auto found =
          std::find_if(all.rbegin(), all.rend(), [&](const auto& each) { return each.key() == name; });
      if (found != all.rend()) {  // of two, the last, as in a map
        return &found->value();
      }
    }
    return nullptr;
  }

  const proto::Feature& feature(std::uint64_t at, const Features& all,
                                const std::vector<std::string>& names) const {
    if (const proto::Feature* found = find(all, names)) {
      return *found;
    }
    std::vector<std::string> there;
    for (const proto::NamedFeature& each : all) {
      there.push_back(each.key());
    }
    std::sort(there.begin(), there.end());
    throw InputError("{}: it has no feature {}; it has {:.300}", where(file_, at), fmt::join(names, " or "),
                     fmt::format("{}", fmt::join(there, ", ")));
  }

  const DataFile& file_;
  const TfrecordFeatures& features_;
  PartIndex index_;
};

}  // namespace

PartIndex index_tfrecord(const DataFile& file, const TfrecordFeatures& features) {
  return Indexer(file, features).run();
}

void check_tfrecord(const DataFile& file, const PartEntry& entry, std::span<const std::byte> record) {
  if (record.size() < kHeader + kChecksum) {  // of an index that somebody forged
    throw InputError("{}: the index beside it gives it {} bytes, expected at least {}; remove the index",
                     where(file, entry.offset), record.size(), kHeader + kChecksum);
  }
  check(file, entry.offset, record, kLength, "length");
  check(file, entry.offset, record.subspan(kHeader), record.size() - kHeader - kChecksum, "data");
}

std::unique_ptr<Dataset> open_tfrecord(const std::string& place, const OpenOptions& options) {
  std::string where = place;
  TfrecordFeatures features;
  PartFormat format{.kind = "tfrecord", .recipe = "tfrecord"};
  for (const auto& [option, name] : take_options(where, {"image", "label", "text"})) {
    (option == "image" ? features.image : option == "label" ? features.label : features.text) = {name};
    format.recipe += fmt::format(",{}={}", option, name);
  }
  format.build = [features](const DataFile& file) { return index_tfrecord(file, features); };
  if (options.verify != Verify::never) {
    format.check = check_tfrecord;
  }
  const auto paths = files_named(where);
  return open_parts(std::move(format), paths, classes_beside(paths[0]), options.reading);
}

}  // namespace millrace
