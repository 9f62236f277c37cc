#include "distributed/gpus/nccl_library.h"

#include <atomic>
#include <cstdlib>
#include <dlfcn.h>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/tell.h"
#include "distributed/gpus/nccl_communicator.h"

namespace millrace {
namespace {

/// Communicators that do not block and take a configuration are there, and do what we ask of them.
constexpr int kOldest = NCCL_VERSION(2, 18, 0);
/// Windows are as nccl.h declares them.
constexpr int kWindows = NCCL_VERSION(2, 28, 0);

std::vector<std::string> places() {
  if (const char* path = std::getenv("MILLRACE_NCCL"); path != nullptr && *path != '\0') {
    return {path};
  }
  return {"libnccl.so.2", "/usr/local/cuda/lib64/libnccl.so.2", "/usr/local/cuda/lib/libnccl.so.2"};
}

/// The library's handle and where it was. It is never closed: NCCL has threads of its own.
std::pair<void*, std::string> open_library() {
  std::string tried;
  for (const std::string& place : places()) {
    if (void* handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      return {handle, place};
    }
    tried += fmt::format("{}{}", tried.empty() ? "" : "; ", dlerror());
  }
  throw MachineError(
      "nccl: the library was not found ({}); install NCCL 2.28, or set MILLRACE_NCCL to the path of "
      "libnccl.so.2. One GPU needs none",
      tried);
}

NcclLibrary load() {
  const auto [handle, place] = open_library();
  NcclLibrary library;
#define MILLRACE_LOAD(name) \
  library.name = reinterpret_cast<decltype(library.name)>(dlsym(handle, "nccl" #name));
  MILLRACE_LOAD(GetVersion)
  int version = 0;
  if (library.GetVersion == nullptr || library.GetVersion(&version) != ncclSuccess || version < kOldest) {
    throw MachineError("nccl: got version {} in {}, expected 2.18 or later, best 2.28",
                       version == 0 ? "unknown" : version_of(library), place);
  }
  MILLRACE_NCCL_FUNCTIONS(MILLRACE_LOAD)
  if (version >= kWindows) {
    MILLRACE_NCCL_WINDOW_FUNCTIONS(MILLRACE_LOAD)
  } else {
    tell(fmt::format("nccl: version {} in {} is older than 2.28: gradients are summed without windows",
                     version_of(library), place));
  }
#define MILLRACE_CHECK(name)                                             \
  if (library.name == nullptr) {                                         \
    throw MachineError("nccl: {} has no function nccl{}", place, #name); \
  }
  MILLRACE_NCCL_FUNCTIONS(MILLRACE_CHECK)
  return library;
}

std::atomic<const NcclLibrary*> replacement{nullptr};

}  // namespace

void replace_nccl_library(const NcclLibrary* library) { replacement = library; }

const NcclLibrary& nccl_library() {
  if (const NcclLibrary* library = replacement) {
    return *library;
  }
  static const NcclLibrary library = load();  // what it throws it throws again at the next call
  return library;
}

std::string version_of(const NcclLibrary& library) {
  int version = 0;
  library.GetVersion(&version);
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

std::string describe_nccl() {
  try {
    return version_of(nccl_library());
  } catch (const MachineError& error) {
    return fmt::format("not there: {}", error.what());
  }
}

}  // namespace millrace
