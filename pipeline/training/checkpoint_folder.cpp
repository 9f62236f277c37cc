#include "pipeline/training/checkpoint_folder.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "pipeline/training/checkpoint.h"

namespace millrace {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kPrefix = "step-";

void remove_quietly(const fs::path& path) {
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

bool is_whole(const fs::path& path) {
  try {
    load_checkpoint(path);
    return true;
  } catch (const InputError&) {
    return false;
  }
}

}  // namespace

std::string checkpoint_name(std::int64_t step) { return fmt::format("{}{:09}", kPrefix, step); }

std::optional<std::int64_t> step_of(const fs::path& path) {
  const std::string name = path.filename();
  std::int64_t step = 0;
  if (name.starts_with(kPrefix)) {
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
  }
  return name == checkpoint_name(step) ? std::optional(step) : std::nullopt;
}

std::vector<fs::path> checkpoints_in(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    // One that a killed run was about to replace counts until it has its name again, before what has it.
    if (step_of(at->path()) || (at->path().extension() == kReplaced && step_of(at->path().stem()))) {
      found.push_back(at->path());
    }
  }
  const auto age = [](const fs::path& path) { return std::pair(step_of(path.stem()), step_of(path)); };
  std::sort(found.begin(), found.end(),
            [&](const fs::path& a, const fs::path& b) { return age(a) < age(b); });
  return found;
}

FileDescriptor take_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  FileDescriptor lock(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (lock.get() < 0 || ::access(folder.c_str(), W_OK | X_OK) != 0) {
    throw InputError("cannot write checkpoints into {}: {}; name a folder that may be written",
                     folder.string(), std::strerror(errno));
  }
  // A file system without locks is no reason to go without checkpoints.
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    throw InputError(
        "cannot write checkpoints into {}: another run does that now; name another folder, or end it",
        folder.string());
  }
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const fs::path ending = at->path().extension(), place = folder / at->path().stem();
    if (!step_of(place)) {
      continue;
    }
    std::error_code ignored;
    if (ending == kReplaced && (!fs::exists(place, ignored) || (!is_whole(place) && is_whole(at->path())))) {
      remove_quietly(place);
      fs::rename(at->path(), place, ignored);
    } else if (ending == kUnfinished || ending == kReplaced || ending == kRemoved) {
      remove_quietly(at->path());
    }
  }
  return lock;
}

void remove_old(const fs::path& folder, std::int64_t newest, int keep) {
  std::vector<fs::path> old = checkpoints_in(folder);
  std::erase_if(old, [&](const fs::path& path) { return *step_of(path.stem()) > newest; });
  for (std::size_t i = 0; i + static_cast<std::size_t>(keep) < old.size(); ++i) {
    const fs::path removed = old[i].string() + kRemoved;  // never half a checkpoint under its own name
    std::error_code error;
    fs::rename(old[i], removed, error);
    remove_quietly(removed);
  }
}

void sync_folder(const fs::path& folder) {
  const FileDescriptor file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (file.get() < 0 || (::fsync(file.get()) != 0 && errno != EINVAL)) {  // not every file system can do that
    throw MachineError("cannot write {}: {}", folder.string(), std::strerror(errno));
  }
}

}  // namespace millrace
