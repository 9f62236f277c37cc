#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

/// How the bytes of a sample's image are to be read.
enum class Encoding : std::uint8_t {
  raw_hwc,  ///< u8, height x width x channels
  raw_chw,  ///< u8, channels x height x width
  jpeg,
  other  ///< PNG and whatever else OpenCV's imgcodecs reads
};

/// One sample as stored: encoded bytes and a label. The bytes stay valid as long as the scratch they may lie
/// in.
struct Sample {
  std::span<const std::byte> bytes;
  Encoding encoding = Encoding::raw_hwc;
  int height = 0, width = 0, channels = 0;  ///< Of raw images; 0 when the encoding tells.
  std::int64_t label = 0;
};

/// What all samples have in common; zeros where that is not known before decoding.
struct DatasetInfo {
  int height = 0, width = 0, channels = 3;
  std::vector<std::string> classes;
};

/// A list of labelled images that can be read in any order from many threads at once. Bytes and labels only:
/// no decoding.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual std::int64_t size() const = 0;
  virtual const DatasetInfo& info() const = 0;
  /// Sample `index` of [0, size()). `scratch` holds its bytes where they are not in memory already.
  /// @throws InputError naming the file when it cannot be read.
  virtual Sample read(std::int64_t index, std::vector<std::byte>& scratch) const = 0;
  /// Where a sample comes from, for messages: a path, "data_batch_1.bin, record 17".
  virtual std::string describe(std::int64_t index) const = 0;
};

/// Opens `kind:where`: "cifar10:DIR", "images:DIR", "idx:DIR", "synthetic:N". Training data; a kind with a
/// test part of its own (cifar10, idx) opens that with `train` false. @throws InputError that lists the
/// kinds, or names what is missing.
std::unique_ptr<Dataset> open_dataset(std::string_view name, bool train = true);

}  // namespace millrace
