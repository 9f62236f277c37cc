#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/group/process_group.h"

namespace millrace {

struct GroupOptions {
  /// How long members wait for each other.
  std::chrono::duration<double> timeout = std::chrono::minutes(5);
  SumOrder sum_order = SumOrder::tree;  ///< engine: NCCL's own between GPUs; elsewhere the tree all the same.
  std::shared_ptr<ProcessGroup> processes;  ///< Each with as many members; none: this one is alone.
};

/// The members in this process of a group of threads, one rank for each of `devices`, in their order: on the
/// CPU through its memory, on one GPU by kernels of ours, on several GPUs, each once, by NCCL. Ranks count
/// process by process; between processes GPUs are joined by NCCL, and CPUs by what joined the processes.
/// @throws InputError naming the devices when they are none of these, MachineError when NCCL is missing.
std::vector<std::unique_ptr<Communicator>> make_group(std::span<const Device> devices,
                                                      const GroupOptions& options = {});

}  // namespace millrace
