#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

class Hash;

/// How the bytes of a sample's image are to be read.
enum class Encoding : std::uint8_t {
  raw_hwc,  ///< u8, height x width x channels
  raw_chw,  ///< u8, channels x height x width
  jpeg,
  png
};

/// Of an encoded image. A larger one is taken for damaged or hostile, before memory is spent on it.
inline constexpr std::int64_t kMostEncodedBytes = std::int64_t{1} << 28;

/// One sample as stored: encoded bytes and a label. The bytes stay valid as long as the scratch that may hold
/// them.
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
  /// The label that `read` gives; the default reads the sample.
  virtual std::int64_t label(std::int64_t index) const;
  /// Where a sample comes from, for messages: a path, "data_batch_1.bin, record 17".
  virtual std::string describe(std::int64_t index) const = 0;
  /// The definition of `fingerprint`. Version 1 covered no bytes, and no labels but of image, tar and
  /// TFRecord files; it stands in older checkpoints and states, which are checked by it.
  static constexpr int kFingerprintVersion = 2;
  /// Tells whether two data sets hold the same samples in the same order, wherever they are stored. The
  /// default is a hash of how many samples, classes and channels there are, of what `add_known` adds, and of
  /// 16 samples spread evenly over the data set: label, form and bytes, or that one cannot be read. It reads
  /// no more than these. Classes' names do not count: some come from where the files lie, and no bit of a
  /// training depends on them. Override it where `read` does not give the same bytes each time.
  virtual std::uint64_t fingerprint(int version = kFingerprintVersion) const;
  /// Advice that these samples are wanted soon, so that storage can start; the default does nothing.
  virtual void will_need(std::span<const std::int64_t>) const {}

 protected:
  /// Adds to a fingerprint what is known of all samples without reading them, wherever they are stored: their
  /// labels, with `add_labels`. The default adds nothing, since its `label` reads.
  virtual void add_known(Hash&) const {}
  /// A label that is damaged counts as such.
  void add_labels(Hash& hash) const;
};

/// How the bytes of large files come into memory.
enum class Reading : std::uint8_t {
  map,  ///< Mapped: no copy, the kernel's page cache is the memory.
  read  ///< Read by position into the caller's memory: for network file systems and files beyond memory.
};

/// When the checksum of a sample's bytes is compared, in formats that have one.
enum class Verify : std::uint8_t { first_read, always, never };

struct OpenOptions {
  /// When false, a kind with test data of its own (cifar10, cifar100, idx, synthetic) opens these.
  bool train = true;
  Reading reading = Reading::map;
  Verify verify = Verify::first_read;
};

/// What `open_dataset` knows: "images:DIR, images:FILE.tar, list:FILE.csv, ...".
std::string dataset_kinds();

/// Opens `kind:where`; docs/formats.md says what each kind holds.
/// @throws InputError that lists the kinds, or names what is missing.
std::unique_ptr<Dataset> open_dataset(std::string_view name, const OpenOptions& options = {});

}  // namespace millrace
