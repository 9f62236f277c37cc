#pragma once

#include <cudnn.h>

/// The installed cuDNN, opened at run time: it finalizes plans for a device that need not be here.
namespace millrace::fake_cudnn {

struct RealLibrary {
  decltype(&cudnnGetVersion) version = nullptr;
  decltype(&cudnnBackendCreateDescriptor) create = nullptr;
  decltype(&cudnnBackendDestroyDescriptor) destroy = nullptr;
  decltype(&cudnnBackendSetAttribute) set = nullptr;
  decltype(&cudnnBackendGetAttribute) get = nullptr;
  decltype(&cudnnBackendFinalize) finalize = nullptr;
  decltype(&cudnnGetLastErrorString) last_error = nullptr;
};
/// Null where there is none.
const RealLibrary* real_library();

}  // namespace millrace::fake_cudnn
