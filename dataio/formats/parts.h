#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dataio/dataset.h"
#include "dataio/file.h"
#include "dataio/formats/part_index.h"

namespace millrace {

/// How one kind of container is read.
struct PartFormat {
  std::string kind;    ///< For messages: "tar".
  std::string recipe;  ///< All that `build` depends on besides the file; names the kept index.
  std::function<PartIndex(const DataFile&)> build;
  /// Throws an InputError when the bytes of an entry are not as they were written; empty where nothing tells.
  std::function<void(const DataFile&, const PartEntry&, std::span<const std::byte>)> check;
  /// An entry's own name, for messages; empty where it has none.
  std::function<std::string(const DataFile&, const PartEntry&)> name;
};

/// One data set of all `paths`, in their order. Classes are `class_names` where there are any, else those
/// that the parts tell, else numbers.
/// @throws InputError when there is no sample or a label has no class, or from the format.
std::unique_ptr<Dataset> open_parts(PartFormat format, const std::vector<std::filesystem::path>& paths,
                                    std::vector<std::string> class_names, Reading reading);

/// The lines of classes.txt in the folder of `file`; none where it is missing.
std::vector<std::string> classes_beside(const std::filesystem::path& file);

}  // namespace millrace
