#include "app/output/outputs.h"

#include <exception>
#include <map>

#include "base/error.h"
#include "pipeline/training/model_file.h"

namespace millrace::app {

namespace fs = std::filesystem;

void OutputChoice::add_to(CLI::App& command) {
  command.add_option("--log-json", log_json, "Write one JSON object a line to this file");
  command.add_option("--trace", trace, "Write a Chrome trace of the loading here (Perfetto opens it)");
  command.add_option("--save", save, "Write the trained model here (safetensors)");
}

void OutputChoice::check() const {
  std::map<fs::path, const char*> seen;
  for (const auto& [option, path] :
       {std::pair("--save", save), {"--log-json", log_json}, {"--trace", trace}}) {
    if (path.empty()) {
      continue;
    }
    check_can_write(path, path == log_json);
    std::error_code no_place;  // as of /dev/stdout where that is a pipe
    const fs::path whole = fs::absolute(path), place = fs::weakly_canonical(whole, no_place);
    const auto [other, is_new] = seen.emplace(no_place ? whole : place, option);
    if (!is_new) {
      throw InputError("{} and {} are both {}; give each a file of its own", other->second, option,
                       path.string());
    }
  }
}

void write_all(std::initializer_list<std::function<void()>> writes, const Say& say) {
  std::exception_ptr first;
  for (const std::function<void()>& write : writes) {
    try {
      write();
    } catch (const std::exception& error) {
      if (first) {
        say(error.what());
      } else {
        first = std::current_exception();
      }
    }
  }
  if (first) {
    std::rethrow_exception(first);
  }
}

}  // namespace millrace::app
