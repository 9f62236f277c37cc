#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/new_file.h"
#include "nn/state.h"

namespace millrace::nn {

namespace {

using nlohmann::ordered_json;

constexpr std::uint64_t kMaxHeader = 100'000'000;  // bytes; the reference reader's limit

struct TypeName {
  DType dtype;
  const char* name;
};
constexpr TypeName kTypeNames[] = {{DType::f32, "F32"},   {DType::f64, "F64"}, {DType::f16, "F16"},
                                   {DType::bf16, "BF16"}, {DType::u8, "U8"},   {DType::i32, "I32"},
                                   {DType::i64, "I64"}};

const char* name_in_file(DType dtype) {
  for (const TypeName& entry : kTypeNames) {
    if (entry.dtype == dtype) {
      return entry.name;
    }
  }
  return "?";
}

/// One entry of the header, checked.
struct Entry {
  std::string name;
  DType dtype;
  Shape shape;
  std::uint64_t begin, end;
};

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : path_(path) {
    std::error_code error;
    bytes_ = std::filesystem::file_size(path, error);  // first: to open a pipe would wait for its writer
    if (!error) {
      in_.open(path, std::ios::binary);
    }
    if (!in_ || error) {
      throw InputError("cannot read {}: {}", path.string(), error ? error.message() : std::strerror(errno));
    }
  }

  SafetensorsFile read() {
    const ordered_json header = read_header();
    SafetensorsFile file;
    std::vector<Entry> entries;
    for (const auto& [name, value] : header.items()) {
      if (name == "__metadata__") {
        read_metadata(value, file);
      } else {
        entries.push_back(read_entry(name, value));
      }
    }
    check_cover(entries);
    for (const Entry& entry : entries) {  // in the order of the bytes
      Tensor tensor = empty(entry.shape, {.dtype = entry.dtype});
      read_bytes(tensor.raw(), entry.end - entry.begin);
      file.tensors.emplace_back(entry.name, tensor);
    }
    return file;
  }

 private:
  template <typename... Args>
  [[noreturn]] void damaged(fmt::format_string<Args...> format, Args&&... args) const {
    throw InputError("{} is no valid safetensors file: {}", path_.string(),
                     fmt::format(format, std::forward<Args>(args)...));
  }

  void read_bytes(void* into, std::uint64_t bytes) {
    in_.read(static_cast<char*>(into), static_cast<std::streamsize>(bytes));
    if (static_cast<std::uint64_t>(in_.gcount()) != bytes) {
      damaged("it ended early");
    }
  }

  ordered_json read_header() {
    std::uint64_t length = 0;
    if (bytes_ < sizeof length) {
      damaged("it has {} bytes, expected at least 8", bytes_);
    }
    read_bytes(&length, sizeof length);
    if (length > kMaxHeader) {
      damaged("its header claims {} bytes, more than {}", length, kMaxHeader);
    }
    if (length > bytes_ - sizeof length) {
      damaged("its header claims {} bytes, but only {} follow", length, bytes_ - sizeof length);
    }
    data_bytes_ = bytes_ - sizeof length - length;
    std::string text(length, '\0');
    read_bytes(text.data(), length);
    ordered_json header = ordered_json::parse(text, nullptr, false);
    if (!header.is_object()) {
      damaged("its header is not a JSON object");
    }
    return header;
  }

  void read_metadata(const ordered_json& value, SafetensorsFile& file) const {
    if (!value.is_object()) {
      damaged("its __metadata__ is not a JSON object");
    }
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) {
        damaged("its metadata \"{}\" is not a string", key);
      }
      file.metadata[key] = text.get<std::string>();
    }
  }

  Entry read_entry(const std::string& name, const ordered_json& value) const {
    const auto whole = [](const ordered_json& list) {
      return list.is_array() &&
             std::all_of(list.begin(), list.end(), [](const auto& n) { return n.is_number_unsigned(); });
    };
    if (!value.is_object() || !value.contains("dtype") || !value["dtype"].is_string() ||
        !value.contains("shape") || !whole(value["shape"]) || !value.contains("data_offsets") ||
        !whole(value["data_offsets"]) || value["data_offsets"].size() != 2) {
      damaged("tensor \"{}\" lacks a dtype, a shape or two data_offsets", name);
    }
    Entry entry{.name = name, .begin = value["data_offsets"][0], .end = value["data_offsets"][1]};
    const std::string type = value["dtype"];
    const auto* known = std::find_if(std::begin(kTypeNames), std::end(kTypeNames),
                                     [&](const TypeName& candidate) { return type == candidate.name; });
    if (known == std::end(kTypeNames)) {
      damaged("tensor \"{}\" has the type {}, which is not supported", name, type);
    }
    entry.dtype = known->dtype;
    if (value["shape"].size() > kMaxDims) {
      damaged("tensor \"{}\" has more than {} dimensions", name, kMaxDims);
    }
    std::uint64_t bytes = size_of(entry.dtype);
    for (const std::uint64_t size : value["shape"]) {
      // What does not fit a 63-bit size cannot fit the file either; the comparison below says so.
      constexpr auto kLimit = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
      bytes = size != 0 && bytes > kLimit / size ? kLimit : bytes * size;
      entry.shape.push_back(static_cast<std::int64_t>(std::min(size, kLimit)));
    }
    if (entry.begin > entry.end || entry.end > data_bytes_) {
      damaged("tensor \"{}\" lies at bytes {} to {} of {}", name, entry.begin, entry.end, data_bytes_);
    }
    if (entry.end - entry.begin != bytes) {
      damaged("tensor \"{}\" of type {} and shape {} has {} bytes", name, type, entry.shape,
              entry.end - entry.begin);
    }
    return entry;
  }

  /// Sorts by place; each byte must belong to one tensor.
  void check_cover(std::vector<Entry>& entries) const {
    std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    std::uint64_t at = 0;
    for (const Entry& entry : entries) {
      if (entry.begin != at) {
        damaged("tensor \"{}\" starts at byte {}, expected {}: tensors overlap or leave a gap", entry.name,
                entry.begin, at);
      }
      at = entry.end;
    }
    if (at != data_bytes_) {
      damaged("its tensors end at byte {} of {}", at, data_bytes_);
    }
  }

  std::filesystem::path path_;
  std::ifstream in_;
  std::uint64_t bytes_ = 0;
  std::uint64_t data_bytes_ = 0;
};

}  // namespace

void save_safetensors(const std::filesystem::path& path, const SafetensorsFile& file) {
  // Wide types first, as the reference writer does, so that every tensor is aligned.
  StateDict tensors = file.tensors;
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return size_of(a.second.dtype()) > size_of(b.second.dtype());
  });
  ordered_json header = ordered_json::object();
  if (!file.metadata.empty()) {
    header["__metadata__"] = file.metadata;
  }
  std::uint64_t at = 0;
  for (const auto& [name, tensor] : tensors) {
    if (name == "__metadata__" || header.contains(name)) {
      throw InputError("save_safetensors: the name \"{}\" is reserved or occurs twice", name);
    }
    header[name] = {{"dtype", name_in_file(tensor.dtype())},
                    {"shape", std::vector<std::int64_t>(tensor.shape().begin(), tensor.shape().end())},
                    {"data_offsets", {at, at + tensor.bytes()}}};
    at += tensor.bytes();
  }
  // A class name may hold bytes that are no UTF-8; JSON cannot.
  std::string text = header.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();

  NewFile out(path);
  out.write(&length, sizeof length);
  out.write(text.data(), text.size());
  for (const auto& [name, tensor] : tensors) {
    const Tensor dense = tensor.to(kCpu).contiguous();
    out.write(dense.raw(), dense.bytes());
  }
  out.commit();
}

SafetensorsFile load_safetensors(const std::filesystem::path& path) { return Reader(path).read(); }

}  // namespace millrace::nn
