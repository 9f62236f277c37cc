#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>

#include "base/error.h"
#include "dataio/formats/csv.h"
#include "dataio/formats/formats.h"
#include "dataio/formats/image_files.h"
#include "dataio/formats/part_index.h"

namespace millrace {

namespace {

namespace fs = std::filesystem;

/// A label as the list writes it.
struct Label {
  std::int32_t number = 0;  ///< Of its first appearance among all.
  std::string where;        ///< That is.
};
using Labels = std::map<std::string, Label, std::less<>>;

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

/// Adds the images, labelled by the order of their labels' appearance.
Labels add_rows(ImageFiles& files, const fs::path& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  CsvReader csv({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
  Labels labels;
  std::vector<std::string> fields;
  for (bool first = true; csv.next(fields); first = false) {
    if (fields.size() != 2) {
      throw InputError("list: {} has {} fields, expected 2: path,label", csv.where(), fields.size());
    }
    if (first && is_header(fields)) {
      continue;
    }
    if (fields[0].empty() || fields[1].empty() || fields[0].find('\0') != std::string::npos) {
      throw InputError("list: {} has an empty or impossible {}", csv.where(),
                       fields[1].empty() ? "label" : "path");
    }
    auto label = labels.find(fields[1]);
    if (label == labels.end()) {
      const auto number = checked_label(static_cast<std::int64_t>(labels.size()), "list: " + csv.where());
      label = labels.emplace(fields[1], Label{number, csv.where()}).first;
    }
    files.add(fields[0], label->second.number);
  }
  if (labels.empty()) {
    throw InputError("list: {} names no images, expected lines of path,label", path.string());
  }
  return labels;
}

bool is_number(const std::string& text) {
  const std::size_t digits = text.starts_with('-') ? 1 : 0;  // a negative one is a number too, and an error
  return text.size() > digits &&
         std::all_of(text.begin() + digits, text.end(), [](unsigned char c) { return std::isdigit(c); });
}

/// Labels that are all numbers stay what they are, others are numbered in order of their bytes.
void name_classes(ImageFiles& files, const Labels& labels) {
  const bool numbers =
      std::all_of(labels.begin(), labels.end(), [](const auto& label) { return is_number(label.first); });
  std::vector<std::int32_t> renumbered(labels.size());
  std::vector<std::string> classes;
  for (const auto& [text, label] : labels) {
    std::int32_t& number = renumbered[static_cast<std::size_t>(label.number)];
    if (numbers) {
      std::int64_t value = PartIndex::kMostClasses;  // what stays when there are too many digits
      std::from_chars(text.data(), text.data() + text.size(), value);
      number = checked_label(value, "list: " + label.where);
      while (classes.size() <= static_cast<std::size_t>(number)) {
        classes.push_back(std::to_string(classes.size()));
      }
    } else {
      number = static_cast<std::int32_t>(classes.size());
      classes.push_back(text);
    }
  }
  files.renumber(renumbered);
  files.name_classes(std::move(classes));
}

}  // namespace

std::unique_ptr<Dataset> open_list(const std::string& path, const OpenOptions&) {
  auto files = std::make_unique<ImageFiles>("list", fs::path(path).parent_path());
  const Labels labels = add_rows(*files, path);
  name_classes(*files, labels);
  return files;
}

}  // namespace millrace
