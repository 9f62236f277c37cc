#include "dataio/glob.h"

#include <algorithm>
#include <glob.h>
#include <new>

#include "tensor/error.h"

namespace millrace {

namespace fs = std::filesystem;

std::vector<fs::path> files_named(const std::string& pattern) {
  std::error_code error;
  if (fs::is_regular_file(pattern, error)) return {pattern};
  glob_t found{};
  const int result = ::glob(pattern.c_str(), GLOB_NOSORT | GLOB_BRACE, nullptr, &found);
  std::vector<fs::path> files;
  for (std::size_t i = 0; i < found.gl_pathc; ++i) {
    const fs::path file = found.gl_pathv[i];
    if (file.extension() != ".mlx" && fs::is_regular_file(file, error)) files.push_back(file);
  }
  ::globfree(&found);
  if (result == GLOB_NOSPACE) throw std::bad_alloc();
  if (files.empty()) throw InputError("{}: there is no such file, and none that it matches", pattern);
  std::sort(files.begin(), files.end(),
            [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
  return files;
}

}  // namespace millrace
