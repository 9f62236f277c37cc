#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <vector>

#include "distributed/communicator.h"

namespace millrace {

struct GroupOptions {
  /// How long members wait for each other.
  std::chrono::duration<double> timeout = std::chrono::minutes(5);
  SumOrder sums = SumOrder::tree;  ///< engine: NCCL's own between GPUs; elsewhere the tree all the same.
};

/// A group of threads of this process, one rank for each of `devices`, in their order: on the CPU through its
/// memory, on one GPU by kernels of ours, on several GPUs, each once, by NCCL.
/// @throws InputError naming the devices when they are none of these, MachineError when NCCL is missing.
std::vector<std::unique_ptr<Communicator>> make_group(std::span<const Device> devices,
                                                      const GroupOptions& options = {});

}  // namespace millrace
