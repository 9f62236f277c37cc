#include "dataio/formats/part_index.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <optional>
#include <unistd.h>

#include "base/error.h"
#include "base/hash.h"

namespace millrace {

namespace {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "indexes are kept as they lie in memory");
static_assert(sizeof(PartEntry) == 24);

/// The kept file: this, the entries, the names (label, length, text), and a hash of all that.
struct Start {
  char magic[8] = {'M', 'L', 'X', 'I', 'D', 'X', '0', '1'};
  std::uint64_t key = 0;
  std::uint64_t entries = 0, names = 0;
};

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <typename T>
void append(std::string& text, const T& value) {
  text.append(reinterpret_cast<const char*>(&value), sizeof value);
}

/// Takes values off the front of a text; nothing when it is too short.
class Parser {
 public:
  explicit Parser(std::string_view text) : rest_(text) {}
  std::size_t left() const { return rest_.size(); }

  bool take(void* out, std::size_t size) {
    if (size > rest_.size()) {
      return false;
    }
    if (size > 0) {
      std::memcpy(out, rest_.data(), size);
    }
    rest_.remove_prefix(size);
    return true;
  }
  template <typename T>
  bool take(T& value) {
    return take(&value, sizeof value);
  }

 private:
  std::string_view rest_;
};

/// What an index depends on: the recipe, the file's size and time, and a sample of its bytes.
std::uint64_t key_of(const DataFile& file, std::string_view recipe) {
  constexpr std::uint64_t kPieces = 16, kPiece = 512;
  Hash hash;
  hash.add(recipe).add(static_cast<std::int64_t>(file.size()));
  std::error_code error;
  hash.add(static_cast<std::int64_t>(fs::last_write_time(file.path(), error).time_since_epoch().count()));
  std::vector<std::byte> scratch;
  const std::uint64_t size = std::min(kPiece, file.size()), last = file.size() - size;
  for (std::uint64_t i = 0; i <= kPieces; ++i) {
    hash.add(as_text(file.read(last / kPieces * i + (i == kPieces ? last % kPieces : 0), size, scratch)));
  }
  return hash.value();
}

std::string to_text(const PartIndex& index, std::uint64_t key) {
  std::string text;
  append(text, Start{.key = key, .entries = index.entries.size(), .names = index.class_names.size()});
  text.append(reinterpret_cast<const char*>(index.entries.data()), index.entries.size() * sizeof(PartEntry));
  for (const auto& [label, name] : index.class_names) {
    append(text, label);
    append(text, static_cast<std::uint32_t>(name.size()));
    text += name;
  }
  append(text, Hash().add(text).value());
  return text;
}

/// Nothing when it is not the whole index for `key` of a file of `file_size` bytes.
std::optional<PartIndex> from_text(std::string_view text, std::uint64_t key, std::uint64_t file_size) {
  Start start;
  std::uint64_t hash = 0;
  if (text.size() < sizeof start + sizeof hash) {
    return std::nullopt;
  }
  std::memcpy(&hash, text.data() + text.size() - sizeof hash, sizeof hash);
  text.remove_suffix(sizeof hash);
  Parser parser(text);
  parser.take(start);
  if (std::memcmp(start.magic, Start().magic, sizeof start.magic) != 0 || start.key != key ||
      hash != Hash().add(text).value() || start.entries > parser.left() / sizeof(PartEntry)) {
    return std::nullopt;
  }
  PartIndex index;
  index.entries.resize(start.entries);
  parser.take(index.entries.data(), start.entries * sizeof(PartEntry));
  for (const PartEntry& entry : index.entries) {
    if (entry.offset > file_size || entry.size > file_size - entry.offset || entry.image_begin > entry.size ||
        entry.image_size > entry.size - entry.image_begin || entry.label < 0 ||
        entry.label >= PartIndex::kMostClasses) {
      return std::nullopt;
    }
  }
  for (std::uint64_t i = 0; i < start.names; ++i) {
    std::int32_t label = 0;
    std::uint32_t size = 0;
    if (!parser.take(label) || !parser.take(size) || size > parser.left()) {
      return std::nullopt;
    }
    std::string name(size, '\0');
    parser.take(name.data(), size);
    index.class_names.emplace(label, std::move(name));
  }
  return parser.left() == 0 ? std::optional(std::move(index)) : std::nullopt;
}

/// The whole file, or nothing where it cannot be read.
std::string read_text(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    return {};
  }
  std::ifstream stream(path, std::ios::binary | std::ios::ate);
  std::string text(stream ? static_cast<std::size_t>(stream.tellg()) : 0, '\0');
  return stream.seekg(0).read(text.data(), static_cast<std::streamsize>(text.size())) ? text : std::string();
}

/// Under a hidden name first, so that nobody reads half of it. Failing is no matter: it is built again.
void keep(const fs::path& path, const std::string& text) {
  const fs::path temporary = path.parent_path() / fmt::format(".{}.{}", path.filename().string(), getpid());
  std::ofstream stream(temporary, std::ios::binary);
  const bool good = stream.write(text.data(), static_cast<std::streamsize>(text.size())).flush().good();
  stream.close();
  std::error_code error;
  if (good) {
    fs::rename(temporary, path, error);
  }
  if (!good || error) {
    fs::remove(temporary, error);
  }
}

}  // namespace

PartIndex kept_index(const DataFile& file, std::string_view recipe,
                     const std::function<PartIndex(const DataFile&)>& build) {
  const std::uint64_t key = key_of(file, recipe);
  fs::path path = file.path();
  path += ".mlx";
  if (auto index = from_text(read_text(path), key, file.size())) {
    return std::move(*index);
  }
  mapped_reads_intact();  // forgets what was read before
  PartIndex index = build(file);
  if (!mapped_reads_intact()) {
    throw InputError("{}: was cut while its samples were listed", file.path().string());
  }
  // Nothing is kept beside a file that may be no part, nor of damage: repair may leave size and time the
  // same.
  const bool damaged = std::any_of(index.entries.begin(), index.entries.end(), [](const PartEntry& entry) {
    return entry.size > 0 && entry.image_size == 0;
  });
  if (!index.entries.empty() && !damaged) {
    keep(path, to_text(index, key));
  }
  return index;
}

std::int32_t checked_label(std::int64_t label, std::string_view where) {
  if (label < 0 || label >= PartIndex::kMostClasses) {
    throw InputError("{} has the label {}, expected 0 to {}", where, label, PartIndex::kMostClasses - 1);
  }
  return static_cast<std::int32_t>(label);
}

}  // namespace millrace
