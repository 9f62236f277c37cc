#include <filesystem>
#include <fstream>
#include <vector>

#include "dataio/file.h"
#include "dataio/formats.h"
#include "tensor/error.h"

namespace millrace {

namespace {

namespace fs = std::filesystem;

constexpr int kSide = 32;
constexpr int kClasses = 10;
constexpr std::size_t kPixels = 3 * kSide * kSide;
constexpr std::size_t kRecord = 1 + kPixels;  // a label, then a red, a green and a blue plane

std::vector<std::string> class_names(const fs::path& file) {
  std::ifstream stream(file);
  if (!stream) {
    return {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"};
  }
  std::vector<std::string> names;
  for (std::string line; std::getline(stream, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  if (names.size() != kClasses) {
    throw InputError("cifar10: {} names {} classes, expected {}", file.string(), names.size(), kClasses);
  }
  return names;
}

class Cifar10 final : public Dataset {
 public:
  Cifar10(const fs::path& folder, const std::vector<std::string>& names, Reading reading) {
    for (const std::string& name : names) {
      const DataFile& file = files_.emplace_back(folder / name, reading);
      const std::uint64_t bytes = file.size();
      if (bytes == 0 || bytes % kRecord != 0) {
        throw InputError(
            "cifar10: {} has {} bytes, expected a multiple of {} (the official file has {}); it is damaged",
            file.path().string(), bytes, kRecord, 10000 * kRecord);
      }
      // All official batches are of one size, so a file cut at a record's end is still seen.
      if (bytes != files_.front().size()) {
        throw InputError("cifar10: {} has {} bytes, but {} has {}; all batches should be of one size",
                         file.path().string(), bytes, files_.front().path().string(), files_.front().size());
      }
    }
    records_ = static_cast<std::int64_t>(files_.front().size() / kRecord);
    info_ = {
        .height = kSide, .width = kSide, .channels = 3, .classes = class_names(folder / "batches.meta.txt")};
  }

  std::int64_t size() const override { return records_ * static_cast<std::int64_t>(files_.size()); }
  const DatasetInfo& info() const override { return info_; }

  Sample read(std::int64_t index, std::vector<std::byte>& scratch) const override {
    const DataFile& file = files_[static_cast<std::size_t>(index / records_)];
    const auto record = file.read(static_cast<std::size_t>(index % records_) * kRecord, kRecord, scratch);
    const int label = std::to_integer<int>(record[0]);
    if (label >= kClasses) {
      throw InputError("cifar10: {} has the label {}, expected 0 to {}; the file is damaged", describe(index),
                       label, kClasses - 1);
    }
    return {record.subspan(1), Encoding::raw_chw, kSide, kSide, 3, label};
  }

  std::string describe(std::int64_t index) const override {
    return fmt::format("{}, record {}", files_[static_cast<std::size_t>(index / records_)].path().string(),
                       index % records_);
  }

 private:
  std::vector<DataFile> files_;
  std::int64_t records_ = 0;  // in each file
  DatasetInfo info_;
};

}  // namespace

std::unique_ptr<Dataset> open_cifar10(const std::string& folder, const OpenOptions& options) {
  std::vector<std::string> names = {"test_batch.bin"};
  if (options.train)
    names = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
             "data_batch_5.bin"};
  for (const fs::path& place : {fs::path(folder), fs::path(folder) / "cifar-10-batches-bin"}) {
    if (std::error_code error; fs::exists(place / names[0], error))
      return std::make_unique<Cifar10>(place, names, options.reading);
  }
  throw InputError(
      "cifar10: {} not found in {} or its subfolder cifar-10-batches-bin; expected the binary version of "
      "CIFAR-10",
      names[0], folder);
}

}  // namespace millrace
