#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "dataio/formats/formats.h"

namespace millrace {

std::map<std::string, std::string> take_options(std::string& where,
                                                std::initializer_list<std::string_view> known) {
  std::map<std::string, std::string> options;
  while (true) {
    const std::size_t comma = where.rfind(','), equals = where.find('=', std::min(comma, where.size()));
    if (comma == std::string::npos || equals == std::string::npos) {
      return options;
    }
    std::string name = where.substr(comma + 1, equals - comma - 1);
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return options;
    }
    options.emplace(std::move(name), where.substr(equals + 1));
    where.resize(comma);
  }
}

namespace {

std::unique_ptr<Dataset> open_kind(std::string_view name, const OpenOptions& options) {
  const std::size_t colon = name.find(':');
  if (colon == std::string_view::npos) {
    throw InputError("data set '{}' names no kind; expected one of {}", name, dataset_kinds());
  }
  const std::string_view kind = name.substr(0, colon);
  const std::string where(name.substr(colon + 1));
  if (where.empty()) {
    throw InputError("data set '{}' says no place; expected one of {}", name, dataset_kinds());
  }
  const auto* const found = std::ranges::find(kDatasetKinds, kind, &DatasetKind::kind);
  if (found != std::end(kDatasetKinds)) {
    return found->open(where, options);
  }
  throw InputError("data set '{}' is of the unknown kind '{}'; expected one of {}", name, kind,
                   dataset_kinds());
}

/// Models and records keep the classes' names in JSON and ended by zeros.
void check_text(const std::string& text, std::string_view name) {
  if (text.find('\0') == std::string::npos) {
    try {
      nlohmann::json(text).dump();
      return;
    } catch (const nlohmann::json::type_error&) {
    }
  }
  throw InputError("data set '{}': the class '{}' has a name that is no text in UTF-8; rename it", name,
                   text.c_str());
}

}  // namespace

std::string dataset_kinds() {
  std::string all;
  for (const DatasetKind& each : kDatasetKinds) {
    all += fmt::format("{}{}", all.empty() ? "" : ", ", each.usage);
  }
  return all;
}

std::unique_ptr<Dataset> open_dataset(std::string_view name, const OpenOptions& options) {
  std::unique_ptr<Dataset> data = open_kind(name, options);
  for (const std::string& text : data->info().classes) {
    check_text(text, name);
  }
  return data;
}

}  // namespace millrace
