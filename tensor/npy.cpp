#include "tensor/npy.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <fmt/format.h>
#include <fstream>
#include <string>
#include <utility>

#include "base/new_file.h"

namespace millrace {

namespace {

constexpr std::string_view kMagic{"\x93NUMPY", 6};
constexpr std::array<std::pair<DType, std::string_view>, 6> kTypes = {{{DType::f32, "<f4"},
                                                                       {DType::f64, "<f8"},
                                                                       {DType::f16, "<f2"},
                                                                       {DType::u8, "|u1"},
                                                                       {DType::i32, "<i4"},
                                                                       {DType::i64, "<i8"}}};

std::string header_for(const Tensor& tensor) {
  std::string type;
  for (const auto& [dtype, name] : kTypes) {
    if (dtype == tensor.dtype()) {
      type = name;
    }
  }
  if (type.empty()) {
    throw InputError("save_npy: NumPy has no type for {}; convert the tensor with to(DType::f32)",
                     tensor.dtype());
  }
  const std::string shape =
      fmt::format("{}{}", fmt::join(tensor.shape(), ", "), tensor.dim() == 1 ? "," : "");
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", type, shape);
  constexpr std::size_t kFixed = 10;  // the magic, the version, the length; the whole is a multiple of 64
  text.append(63 - (kFixed + text.size()) % 64, ' ');
  text += '\n';
  std::string header{kMagic};
  header += {'\1', '\0', static_cast<char>(text.size() & 0xff), static_cast<char>(text.size() >> 8)};
  return header + text;
}

struct Header {
  DType dtype = DType::f32;
  bool fortran_order = false;
  Shape shape;
};

/// Reads the header's Python dictionary: its three keys, in any order.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::filesystem::path& path) : text_(text), path_(path) {}

  Header parse() const {
    Header header;
    header.dtype = type(value_of("descr"));
    const std::string_view order = value_of("fortran_order");
    header.fortran_order = order.starts_with("True");
    if (!header.fortran_order && !order.starts_with("False")) {
      fail("'fortran_order' is neither True nor False");
    }
    header.shape = shape(value_of("shape"));
    return header;
  }

 private:
  std::string_view value_of(std::string_view key) const {
    const std::string quoted = fmt::format("'{}':", key);
    const std::size_t at = text_.find(quoted);
    if (at == std::string_view::npos) {
      fail(fmt::format("its header has no '{}'", key));
    }
    std::string_view rest = text_.substr(at + quoted.size());
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    return rest;
  }

  DType type(std::string_view value) const {
    const std::string_view name = value.substr(0, value.find('\'', 1) + 1);
    for (const auto& [dtype, known] : kTypes) {
      if (name.size() == known.size() + 2 && name.substr(2, known.size() - 1) == known.substr(1) &&
          (name[1] == known[0] || name[1] == '=' || size_of(dtype) == 1)) {
        return dtype;
      }
    }
    fail(fmt::format("its type is {}, expected little-endian f4, f8, f2, i4, i8 or u1", name));
  }

  Shape shape(std::string_view value) const {
    const std::size_t end = value.find(')');
    if (!value.starts_with('(') || end == std::string_view::npos) {
      fail("'shape' is not a tuple");
    }
    value = value.substr(1, end - 1);
    Shape shape;
    while (true) {
      value.remove_prefix(std::min(value.find_first_not_of(", "), value.size()));
      if (value.empty()) {
        return shape;
      }
      std::int64_t size = 0;
      const auto [next, error] = std::from_chars(value.data(), value.data() + value.size(), size);
      if (error != std::errc{} || size < 0) {
        fail("'shape' holds something that is no size");
      }
      if (shape.size() == kMaxDims) {
        fail(fmt::format("it has more than {} dimensions", kMaxDims));
      }
      shape.push_back(size);
      value.remove_prefix(static_cast<std::size_t>(next - value.data()));
    }
  }

  [[noreturn]] void fail(std::string_view what) const {
    throw InputError("load_npy: '{}': {}", path_.string(), what);
  }

  std::string_view text_;
  const std::filesystem::path& path_;
};

Header read_header(std::ifstream& file, const std::filesystem::path& path) {
  std::array<char, 12> start{};
  const auto byte = [&](std::size_t i) {
    return static_cast<std::size_t>(static_cast<unsigned char>(start[i]));
  };
  file.read(start.data(), 10);
  if (!file || std::string_view(start.data(), 6) != kMagic) {
    throw InputError("load_npy: '{}' is not a .npy file: it does not start with NumPy's mark", path.string());
  }
  std::size_t length = byte(8) | byte(9) << 8;
  if (byte(6) == 2 || byte(6) == 3) {  // these count the header in four bytes
    file.read(start.data() + 10, 2);
    length |= byte(10) << 16 | byte(11) << 24;
  } else if (byte(6) != 1) {
    throw InputError("load_npy: '{}' has format version {}, expected 1, 2 or 3", path.string(), byte(6));
  }
  constexpr std::size_t kLongest = 1 << 20;
  std::string text(std::min(length, kLongest), '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file || length > kLongest) {
    throw InputError("load_npy: '{}' ends within its header", path.string());
  }
  return HeaderParser(text, path).parse();
}

}  // namespace

void save_npy(const std::filesystem::path& path, const Tensor& tensor) {
  if (!tensor.defined()) {
    throw InputError("save_npy: got a tensor without a value");
  }
  const std::string header = header_for(tensor);
  const Tensor numbers = tensor.to(kCpu).contiguous();
  NewFile file(path);
  file.write(header.data(), header.size());
  file.write(numbers.raw(), numbers.bytes());
  file.commit();
}

Tensor load_npy(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw InputError("load_npy: cannot read '{}': {}", path.string(), std::strerror(errno));
  }
  const Header header = read_header(file, path);
  // The header is compared with the file before anything is allocated for it.
  const auto start = file.tellg();
  file.seekg(0, std::ios::end);
  const std::int64_t held = file.tellg() - start;
  file.seekg(start);
  std::int64_t bytes = static_cast<std::int64_t>(size_of(header.dtype));
  bool overflow = false;
  for (std::int64_t size : header.shape) {
    overflow |= __builtin_mul_overflow(bytes, size, &bytes);
  }
  if (overflow || held != bytes) {
    throw InputError("load_npy: '{}' holds {} bytes of numbers, its shape {} of {} needs {}", path.string(),
                     held, header.shape, header.dtype,
                     overflow ? "more than can be counted" : std::to_string(bytes));
  }
  Shape shape = header.shape;
  if (header.fortran_order) {
    std::reverse(shape.begin(), shape.end());
  }
  Tensor tensor = empty(shape, {.dtype = header.dtype});
  file.read(reinterpret_cast<char*>(tensor.raw()), bytes);
  if (!file) {
    throw InputError("load_npy: '{}' could not be read to its end", path.string());
  }
  if (!header.fortran_order) {
    return tensor;
  }
  std::vector<int> order(static_cast<std::size_t>(shape.size()));
  for (std::size_t i = 0; i < order.size(); ++i) {
    order[i] = shape.size() - 1 - static_cast<int>(i);
  }
  return tensor.permute(order).contiguous();
}

}  // namespace millrace
