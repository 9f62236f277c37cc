#include <filesystem>
#include <vector>

#include "base/error.h"
#include "dataio/file.h"
#include "dataio/formats/formats.h"
#include "dataio/formats/pickle.h"

namespace millrace {

namespace {

namespace fs = std::filesystem;

constexpr int kSide = 32;
constexpr std::size_t kPixels = 3 * kSide * kSide;  // a red, a green and a blue plane

/// What tells CIFAR-10 and the two sets of labels of CIFAR-100 apart.
struct Kind {
  std::string name;
  std::size_t classes = 0;
  std::size_t label_bytes = 0;  ///< In front of the pixels, in the binary version.
  std::size_t label_at = 0;     ///< Which of them it is.
  std::vector<std::string> binary_files, python_files;
  std::string binary_folder, python_folder;  ///< As the official archives name them.
  std::string binary_names, python_names;    ///< Files of class names.
  std::string labels_key, names_key;         ///< In the pickles.
  std::vector<std::string> default_names;
};

void check_names(const Kind& kind, const fs::path& file, const std::vector<std::string>& names) {
  if (names.size() != kind.classes) {
    throw InputError("{}: {} names {} classes, expected {}", kind.name, file.string(), names.size(),
                     kind.classes);
  }
}

std::vector<std::string> binary_class_names(const Kind& kind, const fs::path& file) {
  if (std::error_code error; !fs::exists(file, error)) {
    return kind.default_names;
  }
  std::vector<std::string> names = lines_of(file);
  check_names(kind, file, names);
  return names;
}

/// Some images in one file, at equal distances.
struct Part {
  DataFile file;
  std::int64_t records = 0;
  std::uint64_t begin = 0;           // of the first record
  std::vector<std::int64_t> labels;  // empty where they stand in the records
};

Part open_binary(const Kind& kind, const fs::path& path, Reading reading) {
  Part part{.file = DataFile(path, reading)};
  const std::uint64_t bytes = part.file.size(), record = kind.label_bytes + kPixels;
  if (bytes == 0 || bytes % record != 0) {
    throw InputError(
        "{}: {} has {} bytes, expected a multiple of {} (the official file has {}); it is damaged", kind.name,
        path.string(), bytes, record,
        record * (kind.classes == 10       ? 10000
                  : path.stem() == "train" ? 50000
                                           : 10000));
  }
  part.records = static_cast<std::int64_t>(bytes / record);
  return part;
}

Part open_python(const Kind& kind, const fs::path& path, Reading reading) {
  Part part{.file = DataFile(path, reading)};
  std::vector<std::byte> scratch;
  const auto bytes = part.file.read(0, part.file.size(), scratch);
  const Pickle pickle(bytes, fmt::format("{}: {}", kind.name, path.string()));
  const Pickle::Matrix images = pickle.matrix("data");
  part.labels = pickle.integers(kind.labels_key);
  part.records = images.rows;
  part.begin = static_cast<std::uint64_t>(images.values.data() - bytes.data());
  if (images.columns != kPixels || images.rows == 0 ||
      part.labels.size() != static_cast<std::size_t>(images.rows)) {
    throw InputError(
        "{}: {} has {} labels and {} x {} pixels, expected as many labels as rows and {} columns", kind.name,
        path.string(), part.labels.size(), images.rows, images.columns, kPixels);
  }
  return part;
}

class Cifar final : public Dataset {
 public:
  Cifar(Kind kind, const fs::path& folder, bool python, Reading reading)
      : kind_(std::move(kind)), record_(python ? kPixels : kind_.label_bytes + kPixels) {
    for (const std::string& name : python ? kind_.python_files : kind_.binary_files) {
      const Part& part =
          parts_.emplace_back((python ? open_python : open_binary)(kind_, folder / name, reading));
      // All official batches are of one size, so a file cut at a record's end is still seen.
      if (part.records != parts_.front().records) {
        throw InputError("{}: {} has {} bytes, but {} has {}; all batches should be of one size", kind_.name,
                         part.file.path().string(), part.file.size(), parts_.front().file.path().string(),
                         parts_.front().file.size());
      }
    }
    records_ = parts_.front().records;
    info_ = {.height = kSide,
             .width = kSide,
             .channels = 3,
             .classes = python ? python_class_names(folder / kind_.python_names)
                               : binary_class_names(kind_, folder / kind_.binary_names)};
  }

  std::int64_t size() const override { return records_ * static_cast<std::int64_t>(parts_.size()); }
  const DatasetInfo& info() const override { return info_; }

  Sample read(std::int64_t index, std::vector<std::byte>& scratch) const override {
    const auto [part, row] = find(index);
    const auto record = part.file.read(part.begin + row * record_, record_, scratch);
    const std::int64_t label =
        part.labels.empty() ? std::to_integer<std::int64_t>(record[kind_.label_at]) : part.labels[row];
    return {record.last(kPixels), Encoding::raw_chw, kSide, kSide, 3, checked(label, index)};
  }

  std::int64_t label(std::int64_t index) const override {
    const auto [part, row] = find(index);
    if (!part.labels.empty()) {
      return checked(part.labels[row], index);
    }
    std::vector<std::byte> scratch;
    const auto byte = part.file.read(part.begin + row * record_ + kind_.label_at, 1, scratch)[0];
    return checked(std::to_integer<std::int64_t>(byte), index);
  }

  std::string describe(std::int64_t index) const override {
    const auto [part, row] = find(index);
    return fmt::format("{}, record {}", part.file.path().string(), row);
  }

 private:
  struct Place {
    const Part& part;
    std::size_t row;
  };

  void add_known(Hash& hash) const override { add_labels(hash); }

  Place find(std::int64_t index) const {
    return {parts_[static_cast<std::size_t>(index / records_)], static_cast<std::size_t>(index % records_)};
  }

  std::int64_t checked(std::int64_t label, std::int64_t index) const {
    if (label < 0 || label >= static_cast<std::int64_t>(kind_.classes)) {
      throw InputError("{}: {} has the label {}, expected 0 to {}; the file is damaged", kind_.name,
                       describe(index), label, kind_.classes - 1);
    }
    return label;
  }

  std::vector<std::string> python_class_names(const fs::path& path) const {
    if (std::error_code error; !fs::exists(path, error)) {
      return kind_.default_names;
    }
    const MappedFile file(path);
    auto names =
        Pickle(file.bytes(), fmt::format("{}: {}", kind_.name, path.string())).texts(kind_.names_key);
    check_names(kind_, path, names);
    return names;
  }

  Kind kind_;
  std::size_t record_;  // bytes
  std::vector<Part> parts_;
  std::int64_t records_ = 0;  // in each part
  DatasetInfo info_;
};

std::unique_ptr<Dataset> open_cifar(Kind kind, const fs::path& folder, Reading reading) {
  for (const bool python : {false, true}) {
    const std::string& file = (python ? kind.python_files : kind.binary_files)[0];
    for (const fs::path& place : {folder, folder / (python ? kind.python_folder : kind.binary_folder)}) {
      if (std::error_code error; fs::exists(place / file, error)) {
        return std::make_unique<Cifar>(std::move(kind), place, python, reading);
      }
    }
  }
  throw InputError(
      "{}: neither {} nor {} found in {} or its subfolders {} and {}; expected the official files", kind.name,
      kind.binary_files[0], kind.python_files[0], folder.string(), kind.binary_folder, kind.python_folder);
}

}  // namespace

std::unique_ptr<Dataset> open_cifar10(const std::string& folder, const OpenOptions& options) {
  Kind kind{.name = "cifar10",
            .classes = 10,
            .label_bytes = 1,
            .python_files = {"test_batch"},
            .binary_folder = "cifar-10-batches-bin",
            .python_folder = "cifar-10-batches-py",
            .binary_names = "batches.meta.txt",
            .python_names = "batches.meta",
            .labels_key = "labels",
            .names_key = "label_names",
            .default_names = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
                              "truck"}};
  if (options.train) {
    kind.python_files = {"data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"};
  }
  for (const std::string& name : kind.python_files) {
    kind.binary_files.push_back(name + ".bin");
  }
  return open_cifar(std::move(kind), folder, options.reading);
}

std::unique_ptr<Dataset> open_cifar100(const std::string& place, const OpenOptions& options) {
  std::string where = place;
  const auto named = take_options(where, {"labels"});
  const std::string labels = named.contains("labels") ? named.at("labels") : "fine";
  if (labels != "fine" && labels != "coarse") {
    throw InputError("cifar100: got labels={}, expected fine or coarse", labels);
  }
  const bool fine = labels == "fine";
  const std::string part = options.train ? "train" : "test";
  Kind kind{.name = "cifar100",
            .classes = fine ? 100u : 20u,
            .label_bytes = 2,
            .label_at = fine ? 1u : 0u,
            .binary_files = {part + ".bin"},
            .python_files = {part},
            .binary_folder = "cifar-100-binary",
            .python_folder = "cifar-100-python",
            .binary_names = labels + "_label_names.txt",
            .python_names = "meta",
            .labels_key = labels + "_labels",
            .names_key = labels + "_label_names"};
  for (std::size_t i = 0; i < kind.classes; ++i) {
    kind.default_names.push_back(std::to_string(i));
  }
  return open_cifar(std::move(kind), where, options.reading);
}

}  // namespace millrace
