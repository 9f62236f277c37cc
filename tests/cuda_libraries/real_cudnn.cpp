#include "real_cudnn.h"

#include <dlfcn.h>
#include <string>

namespace millrace::fake_cudnn {
namespace {

void* open_library() {
  for (const char* folder : {"", "/usr/local/cuda/lib64/", "/usr/local/cuda/lib/"}) {
    if (void* library = dlopen((std::string(folder) + "libcudnn.so.9").c_str(), RTLD_NOW | RTLD_LOCAL)) {
      return library;
    }
  }
  return nullptr;
}

template <typename Function>
bool find(void* library, Function& function, const char* name) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

}  // namespace

const RealLibrary* real_library() {
  static const auto found = [] {
    RealLibrary real;
    void* const library = open_library();
    const bool whole = library != nullptr && find(library, real.version, "cudnnGetVersion") &&
                       find(library, real.create, "cudnnBackendCreateDescriptor") &&
                       find(library, real.destroy, "cudnnBackendDestroyDescriptor") &&
                       find(library, real.set, "cudnnBackendSetAttribute") &&
                       find(library, real.get, "cudnnBackendGetAttribute") &&
                       find(library, real.finalize, "cudnnBackendFinalize") &&
                       find(library, real.last_error, "cudnnGetLastErrorString");
    return std::pair(real, whole);
  }();
  return found.second ? &found.first : nullptr;
}

}  // namespace millrace::fake_cudnn
