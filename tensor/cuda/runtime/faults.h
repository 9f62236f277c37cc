#pragma once

#include <cstdint>

#include "base/error.h"

/// What kernels find wrong with the numbers they are given: a label or an index out of range. The CPU sees it
/// at once; a kernel notes the first one in pinned memory, goes on without that element, and the host reports
/// it where it waits for the device anyway. One note serves a device: of several streams, whichever waits
/// first reports it.
namespace millrace::cuda {

enum class Indexing : int { cross_entropy, index_select, gather, scatter_add };

struct Fault {
  unsigned state;  ///< 0: none, 1: being written, 2: found.
  Indexing operation;
  std::int64_t row, value, size;
};

/// The device's own, which kernels write; it lives as long as the process. @throws MachineError.
Fault* fault_of(int device);

}  // namespace millrace::cuda
