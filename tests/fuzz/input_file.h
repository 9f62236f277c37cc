#pragma once

#include <cstddef>
#include <filesystem>
#include <fmt/format.h>
#include <span>
#include <stdexcept>
#include <stdlib.h>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

namespace millrace::fuzz {

/// Bytes as a file in memory, which any reader can open by its path.
class InputFile {
 public:
  explicit InputFile(std::span<const std::byte> bytes) : fd_(memfd_create("input", MFD_CLOEXEC)) {
    if (fd_ < 0 || write(fd_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
      throw std::runtime_error("cannot make a file in memory");
    }
  }
  ~InputFile() { close(fd_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  std::string path() const { return fmt::format("/proc/self/fd/{}", fd_); }

 private:
  int fd_;
};

/// A folder in which such files have the names that a format wants; removed with all that is in it.
class InputFolder {
 public:
  InputFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "millrace-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) {
      throw std::runtime_error("cannot make " + name);
    }
    path_ = name;
  }
  ~InputFolder() { std::filesystem::remove_all(path_); }
  InputFolder(const InputFolder&) = delete;
  InputFolder& operator=(const InputFolder&) = delete;

  std::string path() const { return path_.string(); }
  void link(const std::string& name, const InputFile& file) const {
    std::filesystem::create_symlink(file.path(), path_ / name);
  }

 private:
  std::filesystem::path path_;
};

}  // namespace millrace::fuzz
