#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <vector>
#include <zlib.h>

#include "base/error.h"
#include "dataio/file.h"
#include "dataio/formats/formats.h"

namespace millrace {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kDigits = 10;

/// A gzipped or plain file, read front to back.
class ZippedFile {
 public:
  explicit ZippedFile(fs::path path) : path_(std::move(path)), file_(gzopen(path_.c_str(), "rb")) {
    if (file_ == nullptr) {
      throw_errno("open", path_);
    }
    gzbuffer(file_, 1 << 18);
  }
  ~ZippedFile() { gzclose(file_); }
  ZippedFile(const ZippedFile&) = delete;
  ZippedFile& operator=(const ZippedFile&) = delete;

  /// Fills as much of `bytes` as the file still holds and returns how much that is.
  std::size_t read(std::span<std::byte> bytes) {
    const int got = gzread(file_, bytes.data(), static_cast<unsigned>(bytes.size()));
    int code = Z_OK;
    std::string_view reason = gzerror(file_, &code);
    if (code == Z_ERRNO) {
      throw_errno("read", path_);
    }
    if (got < 0 || code != Z_OK) {
      reason.remove_prefix(
          std::min(reason.size(), path_.native().size() + 2));  // zlib puts "PATH: " in front
      throw InputError("idx: {} is damaged: {}", path_.string(), reason);
    }
    return static_cast<std::size_t>(got);
  }

 private:
  fs::path path_;
  gzFile file_;
};

struct IdxFile {
  fs::path path;
  std::vector<std::int64_t> sizes;  // count, or count, height, width
  std::vector<std::byte> values;    // u8
};

/// `name` in `folder`, with the ending .gz or without it.
fs::path find(const fs::path& folder, const std::string& name) {
  for (const fs::path& path : {folder / name, folder / (name + ".gz")}) {
    if (std::error_code error; fs::is_regular_file(path, error)) {
      return path;
    }
  }
  throw InputError("idx: neither {} nor {}.gz is a file in {}", name, name, folder.string());
}

/// Reads a file of unsigned bytes with `dimensions` dimensions: a magic number, big-endian sizes, then the
/// values.
IdxFile read_idx(const fs::path& path, int dimensions) {
  ZippedFile file(path);
  IdxFile idx{path, {}, {}};
  const auto read_word = [&] {
    std::array<std::byte, 4> word{};
    if (file.read(word) != word.size()) {
      throw InputError("idx: {} ends within its header", path.string());
    }
    std::uint32_t value = 0;
    for (const std::byte byte : word) {
      value = value << 8 | std::to_integer<std::uint32_t>(byte);
    }
    return value;
  };
  const std::uint32_t expected_magic = 0x800u | static_cast<unsigned>(dimensions);
  if (const std::uint32_t magic = read_word(); magic != expected_magic) {
    throw InputError("idx: {} begins with {:#010x}, expected {:#010x} (unsigned bytes in {} dimensions)",
                     path.string(), magic, expected_magic, dimensions);
  }
  std::size_t expected = 1;
  for (int i = 0; i < dimensions; ++i) {
    idx.sizes.push_back(read_word());
    if (__builtin_mul_overflow(expected, static_cast<std::size_t>(idx.sizes.back()), &expected) ||
        expected == 0) {
      throw InputError("idx: {} has an impossible size in its header: {} along dimension {}", path.string(),
                       idx.sizes.back(), i);
    }
  }
  // In pieces: a damaged header must not make us ask for more memory than the file fills.
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  std::size_t got = 0;
  while (got < expected) {
    idx.values.resize(std::min(expected, got + kPiece));
    const std::size_t piece = file.read(std::span(idx.values).subspan(got));
    got += piece;
    if (piece == 0) {
      throw InputError("idx: {} has {} bytes of values, expected {}; it is truncated", path.string(), got,
                       expected);
    }
  }
  if (std::array<std::byte, 1> more{}; file.read(more) != 0) {
    throw InputError("idx: {} has more than the {} bytes of values that its header says", path.string(),
                     expected);
  }
  return idx;
}

std::vector<std::string> class_names(const fs::path& folder) {
  std::string where = fs::canonical(folder).string();
  std::transform(where.begin(), where.end(), where.begin(), [](unsigned char c) { return std::tolower(c); });
  if (where.find("fashion") != std::string::npos) {
    return {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};
  }
  return {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
}

class Idx final : public Dataset {
 public:
  Idx(const fs::path& folder, const std::string& part)
      : images_(read_idx(find(folder, part + "-images-idx3-ubyte"), 3)),
        labels_(read_idx(find(folder, part + "-labels-idx1-ubyte"), 1)) {
    if (images_.sizes[0] != labels_.sizes[0]) {
      throw InputError("idx: {} has {} images, but {} has {} labels", images_.path.string(), images_.sizes[0],
                       labels_.path.string(), labels_.sizes[0]);
    }
    const auto wrong = std::find_if(labels_.values.begin(), labels_.values.end(), [](std::byte label) {
      return std::to_integer<std::size_t>(label) >= kDigits;
    });
    if (wrong != labels_.values.end()) {
      throw InputError("idx: {}, record {} has the label {}, expected 0 to {}", labels_.path.string(),
                       wrong - labels_.values.begin(), std::to_integer<int>(*wrong), kDigits - 1);
    }
    info_ = {.height = static_cast<int>(images_.sizes[1]),
             .width = static_cast<int>(images_.sizes[2]),
             .channels = 1,
             .classes = class_names(folder)};
  }

  std::int64_t size() const override { return images_.sizes[0]; }
  const DatasetInfo& info() const override { return info_; }

  Sample read(std::int64_t index, std::vector<std::byte>&) const override {
    const auto pixels = static_cast<std::size_t>(images_.sizes[1] * images_.sizes[2]);
    const auto image = std::span(images_.values).subspan(static_cast<std::size_t>(index) * pixels, pixels);
    return {image, Encoding::raw_hwc, info_.height, info_.width, 1, label(index)};
  }

  std::int64_t label(std::int64_t index) const override {
    return std::to_integer<std::int64_t>(labels_.values[static_cast<std::size_t>(index)]);
  }

  std::string describe(std::int64_t index) const override {
    return fmt::format("{}, record {}", images_.path.string(), index);
  }

 private:
  void add_known(Hash& hash) const override { add_labels(hash); }

  IdxFile images_, labels_;
  DatasetInfo info_;
};

}  // namespace

std::unique_ptr<Dataset> open_idx(const std::string& folder, const OpenOptions& options) {
  return std::make_unique<Idx>(folder, options.train ? "train" : "t10k");
}

}  // namespace millrace
