#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/hash.h"
#include "dataio/dataset.h"
#include "dataio/formats/pickle.h"
#include "input_file.h"
#include "targets.h"

namespace millrace::fuzz {
namespace {

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::uint64_t hash_samples(const Dataset& dataset) {
  constexpr std::int64_t kMost = 256;
  Hash hash;
  hash.add(dataset.size()).add(static_cast<std::int64_t>(dataset.info().classes.size()));
  for (std::int64_t i = 0; i < std::min(dataset.size(), kMost); ++i) {
    std::vector<std::byte> scratch;  // of its own, so that reading beyond it is seen
    const Sample sample = dataset.read(i, scratch);
    hash.add(sample.label).add(as_text(sample.bytes)).add(static_cast<std::int64_t>(sample.encoding));
    hash.add(sample.height).add(sample.width).add(sample.channels);
    if (dataset.describe(i).empty()) {
      throw std::logic_error("a sample has no description");
    }
  }
  return hash.value();
}

// Little-endian numbers.
std::uint64_t get(std::span<const std::byte> bytes, std::size_t at, std::size_t size) {
  std::uint64_t value = 0;
  for (std::size_t i = size; i > 0; --i) {
    value = value << 8 | std::to_integer<std::uint64_t>(bytes[at + i - 1]);
  }
  return value;
}
void put(std::span<std::byte> bytes, std::size_t at, std::uint64_t value, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) {
    bytes[at + i] = static_cast<std::byte>(value >> 8 * i);
  }
}

/// What is read through a mapping and by position must be the same, and so must be what is refused.
std::uint64_t read_all(const std::string& name, const std::string& file) {
  std::array<std::optional<std::uint64_t>, 2> hashes;
  std::string message;
  for (const Reading reading : {Reading::map, Reading::read}) {
    try {
      hashes[reading == Reading::map ? 0 : 1] =
          hash_samples(*open_dataset(name, {.train = false, .reading = reading}));
    } catch (const InputError& error) {
      message = error.what();
    }
  }
  if (hashes[0] != hashes[1]) {
    throw std::logic_error("mapped and read by position differ: " + message);
  }
  if (hashes[0]) {
    return *hashes[0];
  }
  if (message.find(file) == std::string::npos) {
    throw std::logic_error("names no file: " + message);
  }
  throw InputError("{}", message);
}

std::uint64_t read_cifar10(std::span<const std::byte> bytes, const std::string& name) {
  const InputFile file(bytes);
  const InputFolder folder;
  folder.link(name, file);
  return read_all("cifar10:" + folder.path(), name);
}
std::uint64_t cifar10(std::span<const std::byte> bytes) { return read_cifar10(bytes, "test_batch.bin"); }
std::uint64_t cifar10_python(std::span<const std::byte> bytes) { return read_cifar10(bytes, "test_batch"); }

std::uint64_t pickle(std::span<const std::byte> bytes) {
  const Pickle read(bytes, "pickle");
  Hash hash;
  const Pickle::Matrix matrix = read.matrix("data");
  hash.add(matrix.rows).add(matrix.columns).add(as_text(matrix.values));
  for (const std::int64_t label : read.integers("labels")) {
    hash.add(label);
  }
  for (const std::string& name : read.texts("filenames")) {
    hash.add(name);
  }
  return hash.value();
}

/// The images; the labels are three zeros.
std::uint64_t idx(std::span<const std::byte> bytes) {
  constexpr std::array<unsigned char, 11> kLabels = {0, 0, 8, 1, 0, 0, 0, 3};
  const InputFile images(bytes), labels(std::as_bytes(std::span(kLabels)));
  const InputFolder folder;
  folder.link("t10k-images-idx3-ubyte", images);
  folder.link("t10k-labels-idx1-ubyte", labels);
  return read_all("idx:" + folder.path(), "t10k-images-idx3-ubyte");
}

std::uint64_t read_single(std::span<const std::byte> bytes, std::string_view kind) {
  const InputFile file(bytes);
  return read_all(fmt::format("{}:{}", kind, file.path()), file.path());
}
std::uint64_t records(std::span<const std::byte> bytes) { return read_single(bytes, "records"); }
std::uint64_t tar(std::span<const std::byte> bytes) { return read_single(bytes, "tar"); }
std::uint64_t image_tar(std::span<const std::byte> bytes) {
  const InputFile file(bytes);
  const InputFolder folder;
  folder.link("images.tar", file);
  return read_all("images:" + folder.path() + "/images.tar", "images.tar");
}

/// docs/records.md has the places.
void seal_records(std::vector<std::byte>& bytes) {
  constexpr std::size_t kHeader = 128, kEntry = 40;
  if (bytes.size() < kHeader) {
    return;
  }
  const std::size_t size = bytes.size();
  const auto crc_of = [&](std::size_t at, std::size_t count) {
    return crc32c(std::span(bytes).subspan(at, count));
  };
  put(bytes, 16, size, 8);
  const std::uint64_t count = get(bytes, 24, 8), index = std::min<std::uint64_t>(get(bytes, 32, 8), size);
  std::size_t at = index;
  for (std::uint64_t i = 0; i < count && kEntry <= size - at; ++i, at += kEntry) {
    const std::uint64_t offset = get(bytes, at, 8), payload = get(bytes, at + 16, 4) + get(bytes, at + 32, 2);
    if (offset <= size && payload <= size - offset) {
      put(bytes, at + 20, crc_of(offset, payload), 4);
    }
    put(bytes, at + 36, crc_of(at, kEntry - 4), 4);
  }
  put(bytes, 44, crc_of(at, size - at), 4);
  put(bytes, 124, crc_of(0, kHeader - 4), 4);
}

/// Each header's sum, as far as the sizes lead.
void seal_tar(std::vector<std::byte>& bytes) {
  constexpr std::size_t kBlock = 512, kSum = 148, kSize = 124;
  for (std::size_t at = 0; at <= bytes.size() && kBlock <= bytes.size() - at;) {
    const auto header = std::span(bytes).subspan(at, kBlock);
    if (header[0] == std::byte{0}) {
      return;
    }
    std::fill_n(header.begin() + kSum, 8, std::byte{' '});
    unsigned sum = 0;
    for (const std::byte byte : header) {
      sum += std::to_integer<unsigned>(byte);
    }
    std::size_t size = 0;
    for (std::size_t i = 0; i < 11; ++i) {
      size = size << 3 | std::to_integer<unsigned>(header[kSize + i] & std::byte{7});
    }
    for (std::size_t i = 0; i < 6; ++i) {
      header[kSum + 5 - i] = static_cast<std::byte>('0' + (sum >> 3 * i & 7));
    }
    header[kSum + 6] = std::byte{0};
    at += kBlock + (size + kBlock - 1) / kBlock * kBlock;
  }
}

std::uint64_t tfrecord(std::span<const std::byte> bytes) { return read_single(bytes, "tfrecord"); }

/// Each record's length and data have a checksum, rotated and shifted.
void seal_tfrecord(std::vector<std::byte>& bytes) {
  const auto put_sum = [&](std::size_t at, std::size_t size) {
    const std::uint32_t sum = crc32c(std::span(bytes).subspan(at, size));
    put(bytes, at + size, (sum >> 15 | sum << 17) + 0xA282EAD8u, 4);
  };
  for (std::size_t at = 0; bytes.size() - at >= 16;) {
    const std::uint64_t length = get(bytes, at, 8);
    put_sum(at, 8);
    if (length > bytes.size() - at - 16) {
      return;
    }
    put_sum(at + 12, length);
    at += 16 + length;
  }
}

/// The images are not there: labels and names alone.
std::uint64_t csv(std::span<const std::byte> bytes) {
  const InputFile file(bytes);
  const auto list = open_dataset("list:" + file.path());
  Hash hash;
  for (const std::string& name : list->info().classes) {
    hash.add(name);
  }
  for (std::int64_t i = 0; i < list->size(); ++i) {
    hash.add(list->label(i)).add(list->describe(i));
  }
  return hash.value();
}

/// A file of one sample, for an index to lie beside.
class PartWithIndex {
 public:
  PartWithIndex(std::string kind, std::span<const std::byte> part) : kind_(std::move(kind)) {
    std::ofstream(part_, std::ios::binary) << as_text(part);
    open_dataset(kind_ + part_);
    std::ifstream index(index_, std::ios::binary);
    start_.assign(std::istreambuf_iterator<char>(index), {});
    start_.resize(16);
  }

  /// An index that does not fit is no error: a new one is made.
  std::uint64_t read_with(std::span<const std::byte> index) const {
    std::ofstream(index_, std::ios::binary) << as_text(index);
    return read_all(kind_ + part_, part_);
  }

  void seal(std::vector<std::byte>& index) const {
    if (index.size() < start_.size() + 8) {
      return;
    }
    std::copy_n(std::as_bytes(std::span(start_)).begin(), start_.size(), index.begin());
    const std::size_t end = index.size() - 8;
    put(index, end, Hash().add(as_text(std::span(index).first(end))).value(), 8);
  }

 private:
  std::string kind_;
  InputFolder folder_;
  std::string part_ = folder_.path() + "/part", index_ = part_ + ".mlx";
  std::string start_;  // the mark and the key of its index
};

void write(std::vector<std::byte>& bytes, std::size_t at, std::string_view text) {
  std::copy_n(std::as_bytes(std::span(text)).begin(), text.size(),
              bytes.begin() + static_cast<std::ptrdiff_t>(at));
}

const PartWithIndex& tar_with_index() {
  static const PartWithIndex part = [] {
    std::vector<std::byte> bytes(6 * 512);
    write(bytes, 0, "0.png");
    write(bytes, 124, "00000000010");
    write(bytes, 512, "\x89PNG\r\n\x1A\n");
    write(bytes, 1024, "0.cls");
    write(bytes, 1024 + 124, "00000000001");
    write(bytes, 1536, "0");
    seal_tar(bytes);
    return PartWithIndex("tar:", bytes);
  }();
  return part;
}
std::uint64_t tar_index(std::span<const std::byte> bytes) { return tar_with_index().read_with(bytes); }
void seal_tar_index(std::vector<std::byte>& bytes) { tar_with_index().seal(bytes); }

const PartWithIndex& tfrecord_with_index() {
  static const PartWithIndex part = [] {
    std::vector<std::byte> bytes(57);
    bytes[0] = std::byte{41};
    write(bytes, 12, "\x0A\x27\x0A\x15\x0A\x05image\x12\x0C\x0A\x0A\x0A\x08\x89PNG\r\n\x1A\n");
    write(bytes, 37, "\x0A\x0E\x0A\x05label\x12\x05\x1A\x03\x0A\x01\x03");
    seal_tfrecord(bytes);
    return PartWithIndex("tfrecord:", bytes);
  }();
  return part;
}
std::uint64_t tfrecord_index(std::span<const std::byte> bytes) {
  return tfrecord_with_index().read_with(bytes);
}
void seal_tfrecord_index(std::vector<std::byte>& bytes) { tfrecord_with_index().seal(bytes); }

constexpr Target kTargets[] = {{"cifar10", cifar10},
                               {"cifar10_python", cifar10_python},
                               {"csv", csv},
                               {"idx", idx},
                               {"image_tar", image_tar, false, seal_tar},
                               {"pickle", pickle},
                               {"records", records, true, seal_records},
                               {"tar", tar, false, seal_tar},
                               {"tar_index", tar_index, false, seal_tar_index},
                               {"tfrecord", tfrecord, true, seal_tfrecord},
                               {"tfrecord_index", tfrecord_index, false, seal_tfrecord_index}};

}  // namespace

std::span<const Target> dataset_targets() { return kTargets; }

}  // namespace millrace::fuzz
