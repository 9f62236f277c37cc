#pragma once

#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/base/input_error.h"

namespace millrace::test {

/// An empty folder of its own for one test, removed with all that is in it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "millrace-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) {
      throw std::runtime_error("cannot make " + name);
    }
    path_ = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string path(const std::string& name = "") const { return (path_ / name).string(); }

  void write(const std::string& name, std::string_view bytes) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << bytes;
  }

  void make_pipe(const std::string& name) const {
    if (mkfifo(path(name).c_str(), 0600) != 0) {
      throw std::runtime_error("cannot make a pipe " + path(name));
    }
  }

 private:
  std::filesystem::path path_;
};

/// Ends the process should a test wait without an end, as for a pipe that nobody writes to.
struct TimeLimit {
  TimeLimit() { alarm(20); }
  ~TimeLimit() { alarm(0); }
};

}  // namespace millrace::test
