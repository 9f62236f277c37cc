#include "app/output/json_log.h"

#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <fstream>

#include "base/error.h"
#include "base/tell.h"

namespace millrace::app {

std::string to_line(const Json& object) {
  return object.dump(-1, ' ', false, Json::error_handler_t::replace);
}

namespace {

/// Whether a file ends within a line, as one does that a full disk has cut.
bool is_cut(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return false;
  }
  std::ifstream file(path, std::ios::binary);
  return file.seekg(-1, std::ios::end) && file.peek() != '\n';
}

}  // namespace

JsonLog::JsonLog(const std::filesystem::path& path, bool append) : path_(path) {
  if (path.empty()) {
    return;
  }
  const bool begins_line = append && is_cut(path);
  file_.reset(std::fopen(path.c_str(), append ? "ae" : "we"));
  if (!file_) {
    throw InputError("cannot write {}: {}", path.string(), std::strerror(errno));
  }
  if (begins_line) {
    std::fputc('\n', file_.get());
  }
}

void JsonLog::write(const Json& object) {
  if (!file_) {
    return;
  }
  const std::string line = to_line(object) + "\n";
  if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size() || std::fflush(file_.get()) != 0) {
    tell(fmt::format("millrace: cannot write to {}: {}; the run goes on without this log", path_.string(),
                     std::strerror(errno)));
    file_.reset();
  }
}

}  // namespace millrace::app
