#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dataio/dataset.h"
#include "tests/base/temporary_folder.h"

/// What tests of data sets say of samples and errors.
namespace millrace::test {

inline std::string text(const Sample& sample) {
  return {reinterpret_cast<const char*>(sample.bytes.data()), sample.bytes.size()};
}

inline std::string open_error(const std::string& name, bool train = true) {
  return input_error([&] { open_dataset(name, {.train = train}); });
}

inline std::string read_error(const Dataset& dataset, std::int64_t index) {
  std::vector<std::byte> scratch;
  return input_error([&] { dataset.read(index, scratch); });
}

}  // namespace millrace::test
