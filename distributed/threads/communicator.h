#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "distributed/communicator.h"

namespace millrace {

/// A group whose ranks are threads of this process: communicator r is for the thread of rank r, used by one
/// thread at a time. CPU tensors only.
///
/// An operation sees all ranks' tensors in shared memory: each rank sums its part of them on the tree and
/// writes it to all. Ranks that wait spin for some microseconds before they sleep. Destroying one
/// communicator ends the group.
/// @throws InputError when size is below 1 or above 256.
std::vector<std::unique_ptr<Communicator>> make_thread_group(
    int size, std::chrono::duration<double> timeout = std::chrono::minutes(5));

}  // namespace millrace
