#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>

#include "dataio/csv.h"
#include "dataio/formats.h"
#include "dataio/image_files.h"
#include "dataio/shard_index.h"
#include "tensor/error.h"

namespace millrace {

namespace {

namespace fs = std::filesystem;

struct Row {
  std::string path, label, where;
};

bool is_header(std::vector<std::string> fields) {
  for (std::string& field : fields) {
    std::transform(field.begin(), field.end(), field.begin(),
                   [](unsigned char c) { return std::tolower(c); });
  }
  const auto is_one_of = [](const std::string& word, std::initializer_list<std::string_view> words) {
    return std::find(words.begin(), words.end(), word) != words.end();
  };
  return is_one_of(fields[0], {"path", "file", "filename", "image"}) &&
         is_one_of(fields[1], {"label", "class"});
}

std::vector<Row> read_rows(const fs::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  CsvReader csv({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
  std::vector<Row> rows;
  std::vector<std::string> fields;
  for (bool first = true; csv.next(fields); first = false) {
    if (fields.size() != 2) {
      throw InputError("list: {} has {} fields, expected 2: path,label", csv.where(), fields.size());
    }
    if (first && is_header(fields)) continue;
    if (fields[0].empty() || fields[1].empty() || fields[0].find('\0') != std::string::npos) {
      throw InputError("list: {} has an empty or impossible {}", csv.where(),
                       fields[1].empty() ? "label" : "path");
    }
    rows.push_back({std::move(fields[0]), std::move(fields[1]), csv.where()});
  }
  if (rows.empty()) throw InputError("list: {} names no images, expected lines of path,label", path.string());
  return rows;
}

bool is_number(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c); });
}

/// The classes of labels that are numbers: all up to the highest.
std::vector<std::string> add_numbered(ImageFiles& files, const std::vector<Row>& rows) {
  std::int64_t most = 0;
  for (const Row& row : rows) {
    std::int64_t label = ShardIndex::kMostClasses;  // what stays when there are too many digits
    std::from_chars(row.label.data(), row.label.data() + row.label.size(), label);
    files.add(row.path, checked_label(label, "list: " + row.where));
    most = std::max(most, label);
  }
  std::vector<std::string> classes;
  for (std::int64_t label = 0; label <= most; ++label) classes.push_back(std::to_string(label));
  return classes;
}

std::vector<std::string> add_named(ImageFiles& files, const std::vector<Row>& rows) {
  std::map<std::string_view, std::int64_t> labels;
  for (const Row& row : rows) labels.emplace(row.label, 0);
  std::vector<std::string> classes;
  for (auto& [name, label] : labels) {
    label = static_cast<std::int64_t>(classes.size());
    classes.emplace_back(name);
  }
  for (const Row& row : rows) files.add(row.path, labels.at(row.label));
  return classes;
}

}  // namespace

std::unique_ptr<Dataset> open_list(const std::string& path) {
  const std::vector<Row> rows = read_rows(path);
  auto files = std::make_unique<ImageFiles>("list", fs::path(path).parent_path());
  const bool numbered =
      std::all_of(rows.begin(), rows.end(), [](const Row& row) { return is_number(row.label); });
  files->name_classes(numbered ? add_numbered(*files, rows) : add_named(*files, rows));
  return files;
}

}  // namespace millrace
