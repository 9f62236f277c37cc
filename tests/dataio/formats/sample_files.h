#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "dataio/dataset.h"
#include "tests/base/temporary_folder.h"

/// What tests of data sets say of samples and errors.
namespace millrace::test {

/// What begins as a JPEG or PNG file does; no reader of a format looks further.
inline const std::string kJpeg = "\xFF\xD8\xFF\xE0 some JPEG ";
inline const std::string kPng = "\x89PNG\r\n\x1A\n some PNG ";

inline std::string text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline std::string text(const Sample& sample) { return text(sample.bytes); }

inline std::string little_endian(std::uint64_t value, int size) {
  std::string bytes;
  for (int i = 0; i < size; ++i) {
    bytes.push_back(static_cast<char>(value >> 8 * i));
  }
  return bytes;
}

inline std::string open_error(const std::string& name, bool train = true) {
  return input_error([&] { open_dataset(name, {.train = train}); });
}

inline std::string read_error(const Dataset& dataset, std::int64_t index) {
  std::vector<std::byte> scratch;
  return input_error([&] { dataset.read(index, scratch); });
}

}  // namespace millrace::test
