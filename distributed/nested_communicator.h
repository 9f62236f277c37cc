#pragma once

#include <memory>
#include <vector>

#include "distributed/communicator.h"

namespace millrace {

/// One group out of two levels: `local`, the members in this process, and `between`, whose members are the
/// processes, each with equally many local members. Ranks count process by process, so that the tree over
/// them is the local trees, and on top of them the one between processes.
///
/// Local rank 0 speaks for its process, with tensors of the same device. Without `between`, the group is the
/// local one.
std::vector<std::unique_ptr<Communicator>> nest(std::vector<std::unique_ptr<Communicator>> local,
                                                std::shared_ptr<Communicator> between);

}  // namespace millrace
