#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tensor/device.h"

namespace millrace {

struct CheckResult {
  std::string name;  ///< "airbench94 in bf16 on cuda:0, a step"
  bool passed = true;
  std::string found;  ///< What was found, with its bound; of a failure, what to do.
};

struct MachineCheckOptions {
  std::vector<Device> gpus;         ///< To be checked beside the CPU.
  std::vector<std::string> models;  ///< None: lenet5, resnet20 and airbench94.
  /// Told the name of each check before it begins, and the result behind it.
  std::function<void(const std::string& name)> begins = {};
  std::function<void(const CheckResult& result)> ends = {};
};

/// Whether this machine trains correctly, and how fast data moves in it: steps against the CPU's, hashes over
/// replicas and GPUs, a checkpoint, copies, NCCL and the loader. A check that throws has failed, and the
/// others go on; one that hangs, hangs.
std::vector<CheckResult> check_machine(const MachineCheckOptions& options);

}  // namespace millrace
