#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

namespace millrace::app {

using Json = nlohmann::ordered_json;

/// Text for one line; bytes that are no UTF-8, in the name of a folder say, are replaced.
std::string to_line(const Json& object);

/// One JSON object a line, each written out at once. Without a path it swallows everything.
class JsonLog {
 public:
  /// Truncates an existing file, or appends to it, on a line of its own. @throws InputError naming the path
  /// and the reason.
  explicit JsonLog(const std::filesystem::path& path, bool append = false);
  /// A line that cannot be written is told of on standard error, and is the last one: a log ends no training.
  void write(const Json& object);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace millrace::app
