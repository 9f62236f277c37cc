#include "dataio/glob.h"

#include <algorithm>
#include <cstdint>
#include <glob.h>
#include <new>
#include <regex>
#include <set>
#include <sstream>

#include "base/error.h"

namespace millrace {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kMostInRange = 1'000'000;

std::vector<std::string> expand(const std::string& pattern);

/// "{a,b}.tar" as "a.tar" and "b.tar", the innermost braces first.
std::vector<std::string> expand_choices(const std::string& pattern) {
  static const std::regex kChoice(R"(\{([^{}]*,[^{}]*)\})");
  std::smatch choice;
  if (!std::regex_search(pattern, choice, kChoice)) {
    return {pattern};
  }
  std::vector<std::string> patterns;
  std::istringstream words(choice.str(1) + ',');
  for (std::string word; std::getline(words, word, ',');) {
    for (std::string& each : expand(choice.prefix().str() + word + choice.suffix().str())) {
      patterns.push_back(std::move(each));
    }
  }
  return patterns;
}

/// "part-{08..10}.tar" as "part-08.tar", "part-09.tar", "part-10.tar", as the shell and WebDataset expand it,
/// and choices. Each of them must be there, which GLOB_BRACE does not ask for.
std::vector<std::string> expand(const std::string& pattern) {
  static const std::regex kRange(R"(\{(\d{1,9})\.\.(\d{1,9})\})");
  std::smatch range;
  if (!std::regex_search(pattern, range, kRange)) {
    return expand_choices(pattern);
  }
  const std::int64_t first = std::stoll(range[1]), last = std::stoll(range[2]);
  if (last < first || last - first >= kMostInRange) {
    throw InputError("{}: the range {} names no file, or more than {}; give it as {{first..last}}", pattern,
                     range.str(), kMostInRange);
  }
  std::vector<std::string> patterns;
  for (std::int64_t i = first; i <= last; ++i) {
    const std::string number = fmt::format("{:0{}}", i, range[1].length());
    for (std::string& each : expand(range.prefix().str() + number + range.suffix().str())) {
      patterns.push_back(std::move(each));
    }
  }
  return patterns;
}

void add_files(const std::string& pattern, std::vector<fs::path>& files) {
  std::error_code error;
  if (fs::is_regular_file(pattern, error)) {
    files.emplace_back(pattern);
    return;
  }
  const std::size_t before = files.size();
  glob_t found{};
  const int result = ::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found);
  for (std::size_t i = 0; i < found.gl_pathc; ++i) {
    const fs::path file = found.gl_pathv[i];
    if (file.extension() != ".mlx" && fs::is_regular_file(file, error)) {
      files.push_back(file);
    }
  }
  ::globfree(&found);
  if (result == GLOB_NOSPACE) {
    throw std::bad_alloc();
  }
  if (files.size() == before) {
    throw InputError("{}: there is no such file, and none that it matches", pattern);
  }
}

}  // namespace

std::vector<fs::path> files_named(const std::string& pattern) {
  std::error_code error;
  if (fs::is_regular_file(pattern, error)) {
    return {pattern};
  }
  std::vector<fs::path> files;
  for (const std::string& each : expand(pattern)) {
    add_files(each, files);
  }
  std::sort(files.begin(), files.end(),
            [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
  std::set<fs::path> seen;  // ranges and braces may overlap, and links lead to the same file
  std::erase_if(files, [&](const fs::path& file) { return !seen.insert(fs::weakly_canonical(file)).second; });
  return files;
}

}  // namespace millrace
