#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "distributed/communicator.h"

namespace millrace {

/// A group whose ranks are threads of this process with tensors on one GPU; otherwise as `make_thread_group`.
///
/// Ranks meet on the host and go on at once; their streams wait for each other by events, and one kernel sums
/// all ranks' tensors on the tree and writes the sum to all. In builds with CUDA.
/// @throws InputError when size is below 1 or above 256, or the device is no GPU.
std::vector<std::unique_ptr<Communicator>> make_device_group(
    int size, Device device, std::chrono::duration<double> timeout = std::chrono::minutes(5));

}  // namespace millrace
