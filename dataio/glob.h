#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace millrace {

/// The regular files that `pattern` names, in the order of their names' bytes: the file of that very name, or
/// else all that match it as the shell would (`*`, `?`, `[...]`, `{a,b}`, `{000..099}`), but for kept indexes
/// (.mlx). A file that has several names, by links or by "./", comes once. @throws InputError when there is
/// none, or one of a range is missing.
std::vector<std::filesystem::path> files_named(const std::string& pattern);

}  // namespace millrace
