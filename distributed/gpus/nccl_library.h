#pragma once

#include <nccl.h>
#include <string>

/// NCCL, loaded at run time, so that a build with CUDA runs where it is absent. Only files named nccl*
/// include this.
namespace millrace {

/// NCCL's functions that we call, by their names without "nccl".
#define MILLRACE_NCCL_FUNCTIONS(X) \
  X(GetVersion)                    \
  X(GetUniqueId)                   \
  X(GetErrorString)                \
  X(GetLastError)                  \
  X(CommInitRankConfig)            \
  X(CommGetAsyncError)             \
  X(CommDestroy)                   \
  X(CommAbort)                     \
  X(GroupStart)                    \
  X(GroupEnd)                      \
  X(AllReduce)                     \
  X(ReduceScatter)                 \
  X(AllGather)                     \
  X(Broadcast)                     \
  X(Send)                          \
  X(Recv)

/// Null in a library before 2.28, and then not used.
#define MILLRACE_NCCL_WINDOW_FUNCTIONS(X) \
  X(MemAlloc)                             \
  X(MemFree)                              \
  X(CommWindowRegister)                   \
  X(CommWindowDeregister)

/// A table of functions: NCCL's own, or what a test puts in its place.
struct NcclLibrary {
#define MILLRACE_MEMBER(name) decltype(&::nccl##name) name = nullptr;
  MILLRACE_NCCL_FUNCTIONS(MILLRACE_MEMBER)
  MILLRACE_NCCL_WINDOW_FUNCTIONS(MILLRACE_MEMBER)
#undef MILLRACE_MEMBER
};

/// libnccl.so.2, or what `replace_nccl_library` put in its place. Loaded at the first call: from the path in
/// MILLRACE_NCCL where that is set, else from where the system looks and from the CUDA toolkit's folder.
/// @throws MachineError when it is missing or too old, at every call.
const NcclLibrary& nccl_library();
/// For tests; null brings the installed one back. Groups keep the one they were made with.
void replace_nccl_library(const NcclLibrary* library);

/// "2.28.9"
std::string version_of(const NcclLibrary& library);

}  // namespace millrace
