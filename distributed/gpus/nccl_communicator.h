#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <span>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/group_board.h"
#include "distributed/rendezvous/rendezvous.h"

namespace millrace {

struct NcclOptions {
  /// How long members wait for each other, on the host and on the GPU.
  std::chrono::duration<double> timeout = std::chrono::minutes(5);
  /// tree: NCCL moves bytes, and our kernel sums them. engine: NCCL's own sum, whose order depends on the
  /// number of GPUs and on how they are connected.
  SumOrder sum_order = SumOrder::tree;
};

/// Members that are threads of this process, one on each GPU of `devices`, in rank order.
/// @throws InputError when one is no GPU or comes twice (NCCL takes one rank a GPU), MachineError when NCCL
/// is missing, CommunicatorError when it cannot connect them.
std::vector<std::unique_ptr<Communicator>> make_nccl_group(std::span<const Device> devices,
                                                           const NcclOptions& options = {});

/// Names a group of several processes: one of them makes it, and it travels to the others by any way.
using NcclId = std::array<char, 128>;
NcclId make_nccl_id();  ///< @throws MachineError.

/// One process's members of a group: ranks `first` and following, one on each of `devices`.
struct NcclMembers {
  NcclId id;
  int first = 0;
  std::span<const Device> devices;
  std::shared_ptr<GroupBoard> board;  ///< Of all members.
};
/// Otherwise as `make_nccl_group`. All processes call it.
std::vector<std::unique_ptr<Communicator>> join_nccl_group(const NcclMembers& members,
                                                           const NcclOptions& options = {});
/// With the id of rank 0's process, which travels through the rendezvous: it also tells who failed.
/// @throws InputError when processes bring different numbers of devices.
std::vector<std::unique_ptr<Communicator>> join_nccl_group(const std::shared_ptr<Rendezvous>& rendezvous,
                                                           std::span<const Device> devices,
                                                           const NcclOptions& options = {});

/// "2.28.9", or why there is none.
std::string describe_nccl();

}  // namespace millrace
