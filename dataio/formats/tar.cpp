#include "dataio/formats/tar.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "base/error.h"

namespace millrace {

namespace {

constexpr std::uint64_t kBlock = 512;
constexpr std::uint64_t kMostText = 1 << 20;  // of a long name or a pax header

/// A header's fields, by their offsets in POSIX's ustar format.
class Header {
 public:
  explicit Header(std::span<const std::byte> block)
      : text_(reinterpret_cast<const char*>(block.data()), block.size()) {}

  bool is_zero() const { return text_.find_first_not_of('\0') == std::string_view::npos; }
  char type() const { return text_[156]; }
  std::optional<std::uint64_t> size() const { return number(124, 12); }

  std::string name() const {
    const std::string_view name = field(0, 100);
    // GNU's own format keeps other things where ustar has the prefix.
    const std::string_view prefix =
        text_.substr(257, 6) == std::string_view("ustar\0", 6) ? field(345, 155) : "";
    return prefix.empty() ? std::string(name) : fmt::format("{}/{}", prefix, name);
  }

  /// The sum of all bytes, the sum itself taken as spaces; old programs added signed bytes.
  bool checksum_holds() const {
    std::int64_t sum = 0, signed_sum = 0;
    for (std::size_t i = 0; i < kBlock; ++i) {
      const char c = i >= 148 && i < 156 ? ' ' : text_[i];
      sum += static_cast<unsigned char>(c);
      signed_sum += static_cast<signed char>(c);
    }
    const auto stored = number(148, 8);
    return stored &&
           (static_cast<std::int64_t>(*stored) == sum || static_cast<std::int64_t>(*stored) == signed_sum);
  }

 private:
  std::string_view field(std::size_t offset, std::size_t size) const {
    const std::string_view whole = text_.substr(offset, size);
    return whole.substr(0, whole.find('\0'));
  }

  /// Octal digits; or, when the first bit is set, GNU's binary numbers.
  std::optional<std::uint64_t> number(std::size_t offset, std::size_t size) const {
    std::string_view digits = text_.substr(offset, size);
    std::uint64_t value = 0;
    if (const auto first = static_cast<unsigned char>(digits[0]); first & 0x80) {
      if (first != 0x80) {  // negative, or beyond 88 bits
        return std::nullopt;
      }
      for (const char c : digits.substr(1)) {
        if (value >> 55 != 0) {
          return std::nullopt;
        }
        value = value << 8 | static_cast<unsigned char>(c);
      }
      return value;
    }
    digits = digits.substr(0, digits.find('\0'));
    digits.remove_prefix(std::min(digits.find_first_not_of(' '), digits.size()));
    digits = digits.substr(0, digits.find_last_not_of(' ') + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 8);
    if (digits.empty()) {
      return 0;
    }
    if (error != std::errc() || end != digits.data() + digits.size()) {
      return std::nullopt;
    }
    return value;
  }

  std::string_view text_;
};

void strip_dots(std::string& name) {
  while (name.starts_with("./")) {
    name.erase(0, 2);
  }
}

}  // namespace

bool TarReader::next(TarMember& member) {
  while (true) {
    const std::uint64_t at = position_;
    const Header header(read_header(at));
    if (header.is_zero()) {
      check_end();
      return false;
    }
    const char type = header.type();
    const bool extends = type == 'L' || type == 'K' || type == 'x' || type == 'g';
    const Extension said = extends ? Extension() : std::exchange(extension_, {});
    std::string name = said.name.empty() ? header.name() : said.name;
    std::uint64_t size = said.has_size ? said.size : *header.size();
    if (type >= '1' && type <= '6') {  // links, devices and directories have no bytes
      size = 0;
    }
    const std::uint64_t room = file_.size() - at - kBlock;
    if (size > room) {
      throw InputError("tar: {} is cut: the {} bytes of {} at offset {} should follow, {} do",
                       file_.path().string(), size, name, at, room);
    }
    position_ = at + kBlock + (size + kBlock - 1) / kBlock * kBlock;
    if (type == 'L') {
      read_long_name(at, size);
    }
    if (type == 'x') {
      read_pax(at, size);
    }
    if (type == 'S') {
      throw sparse(at);
    }
    // A name that ends so is a directory's, as very old programs write it.
    if ((type == '0' || type == '\0' || type == '7') && !name.ends_with('/')) {
      strip_dots(name);
      member = {std::move(name), at, at + kBlock, size};
      return true;
    }
  }
}

/// A good header or a block of zeros.
std::span<const std::byte> TarReader::read_header(std::uint64_t at) {
  if (at > file_.size() || file_.size() - at < kBlock) {
    throw InputError("tar: {} is cut: it has {} bytes, at offset {} a header or the end mark should follow",
                     file_.path().string(), file_.size(), at);
  }
  const auto block = file_.read(at, kBlock, scratch_);
  if (const Header header(block); !header.is_zero() && (!header.checksum_holds() || !header.size())) {
    throw InputError("tar: {} has no good header at offset {}; it is damaged or no tar file",
                     file_.path().string(), at);
  }
  return block;
}

InputError TarReader::sparse(std::uint64_t header) const {
  return InputError("tar: {} holds a sparse file at offset {}; make the archive without --sparse",
                    file_.path().string(), header);
}

void TarReader::read_long_name(std::uint64_t header, std::uint64_t size) {
  extension_.name = read_text(header, size);
  extension_.name.resize(std::min(extension_.name.find('\0'), extension_.name.size()));
}

/// What follows a header.
std::string TarReader::read_text(std::uint64_t header, std::uint64_t size) {
  if (size > kMostText) {
    throw InputError(
        "tar: {} has a name or pax header of {} bytes at offset {}, expected at most {}; it is damaged",
        file_.path().string(), size, header, kMostText);
  }
  const auto bytes = file_.read(header + kBlock, size, scratch_);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Lines of "LENGTH KEY=VALUE\n", where the length counts the whole line.
void TarReader::read_pax(std::uint64_t header, std::uint64_t size) {
  const std::string text = read_text(header, size);
  const auto damaged = [&] {
    return InputError("tar: {} has a damaged pax header at offset {}", file_.path().string(), header);
  };
  const auto number = [&](std::string_view digits) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size()) {
      throw damaged();
    }
    return value;
  };
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t space = std::min(rest.find(' '), rest.size());
    const std::uint64_t length = number(rest.substr(0, space));
    if (length < space + 2 || length > rest.size() || rest[length - 1] != '\n') {
      throw damaged();
    }
    const std::string_view line = rest.substr(space + 1, length - space - 2);
    rest.remove_prefix(length);
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos) {
      throw damaged();
    }
    const std::string_view key = line.substr(0, equals), value = line.substr(equals + 1);
    if (key == "path") {
      extension_.name = value.substr(0, value.find('\0'));
    }
    if (key == "size") {
      extension_.size = number(value);
      extension_.has_size = true;
    }
    if (key.starts_with("GNU.sparse.")) {
      throw sparse(header);
    }
  }
}

/// After the end mark there is only filling: else samples would be lost in silence.
void TarReader::check_end() {
  constexpr std::uint64_t kPiece = 1 << 16;
  for (std::uint64_t at = position_; at < file_.size();) {
    const auto piece = file_.read(at, std::min(kPiece, file_.size() - at), scratch_);
    const auto other =
        std::find_if(piece.begin(), piece.end(), [](std::byte b) { return b != std::byte{0}; });
    if (other != piece.end()) {
      throw InputError(
          "tar: {} has an end mark at offset {}, but more data at {}; it is damaged, or several archives in "
          "one "
          "file: unpack and join them",
          file_.path().string(), position_, at + static_cast<std::uint64_t>(other - piece.begin()));
    }
    at += piece.size();
  }
}

std::string tar_name_at(const DataFile& file, std::uint64_t offset) {
  std::vector<std::byte> scratch;
  std::string name = Header(file.read(offset - kBlock, kBlock, scratch)).name();
  strip_dots(name);
  return name;
}

}  // namespace millrace
