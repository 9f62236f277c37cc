#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "dataio/file.h"

namespace millrace {

/// Where one sample lies in a file that holds many.
struct PartEntry {
  std::uint64_t offset = 0;  ///< Of the bytes that are read for it.
  std::uint32_t size = 0;
  std::uint32_t image_begin = 0, image_size = 0;  ///< The image within them.
  std::int32_t label = 0;
};

/// The samples of one part of a data set, in its own order.
struct PartIndex {
  /// Labels are below this, so that a damaged one makes no list of all the classes before it.
  static constexpr std::int64_t kMostClasses = 1'000'000;

  std::vector<PartEntry> entries;
  std::map<std::int32_t, std::string> class_names;  ///< Those that the part itself tells.
};

/// Gives the index that is kept beside `file` ("NAME.mlx"); where there is none, or it was made of other
/// bytes or by another `recipe`, calls `build` and keeps the result, if the folder can be written and each
/// entry that has bytes has an image.
PartIndex kept_index(const DataFile& file, std::string_view recipe,
                     const std::function<PartIndex(const DataFile&)>& build);

/// A label as an index holds it. @throws InputError that begins with `where` unless 0 <= label <
/// kMostClasses.
std::int32_t checked_label(std::int64_t label, std::string_view where);

}  // namespace millrace
