#include "app/json_log.h"

#include <cerrno>
#include <cstring>

namespace millrace::app {

std::string to_line(const Json& object) {
  return object.dump(-1, ' ', false, Json::error_handler_t::replace);
}

JsonLog::JsonLog(const std::filesystem::path& path, bool append) : path_(path) {
  if (path.empty()) {
    return;
  }
  file_.reset(std::fopen(path.c_str(), append ? "ae" : "we"));
  if (!file_) {
    throw InputError("cannot write {}: {}", path.string(), std::strerror(errno));
  }
}

void JsonLog::write(const Json& object) {
  if (!file_) {
    return;
  }
  const std::string line = to_line(object) + "\n";
  if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size() || std::fflush(file_.get()) != 0) {
    throw MachineError("cannot write to {}: {}", path_.string(), std::strerror(errno));
  }
}

}  // namespace millrace::app
