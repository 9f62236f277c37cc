#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "distributed/gpus/nccl_library.h"

/// NCCL on emulated GPUs: communicators of this process that never block and move bytes in stream order.
/// Sums are taken from rank 0 up, so that they differ from the tree's. One that goes wrong when it is told
/// to.
namespace millrace::fake_nccl {

enum class Fault {
  none,
  refuses,          // the group of calls is an error at once
  never_settles,    // stays in progress on the host
  never_completes,  // the work waits on the GPU until the abort
  reports_late,     // as that, and after a while NCCL says that the peer is lost
};

struct Plan {
  Fault fault = Fault::none;
  int rank = 0;                                     ///< Who goes wrong...
  int nth = 1;                                      ///< ...in his n-th group of calls.
  bool out_of_order = false;                        ///< Later ranks are done first.
  std::function<void(std::string_view call)> seen;  ///< Told of each operation: "ncclBroadcast".
};

/// Groups made from now on use it, and this happens; misuses are counted anew.
void install(const Plan& plan = {});

/// How NCCL was called wrongly: from two threads at once, before the last call had settled, after the abort.
std::vector<std::string> misuses();
/// What is not given back yet.
struct Held {
  int communicators = 0, windows = 0, blocks = 0;
};
Held held();

}  // namespace millrace::fake_nccl
