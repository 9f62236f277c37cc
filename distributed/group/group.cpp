#include "distributed/group/group.h"

#include <algorithm>

#include "base/error.h"
#include "distributed/gpus/device_communicator.h"
#include "distributed/gpus/nccl_communicator.h"
#include "distributed/nested_communicator.h"
#include "distributed/rendezvous/rendezvous.h"
#include "distributed/threads/communicator.h"
#include "tensor/config.h"

namespace millrace {

std::vector<std::unique_ptr<Communicator>> make_group(std::span<const Device> devices,
                                                      const GroupOptions& options) {
  const int size = static_cast<int>(devices.size());
  const auto is_same = [&](Device device) { return device == devices.front(); };
  const bool one_place = std::ranges::all_of(devices, is_same);
  const bool alone = !options.processes || options.processes->size() == 1;
  if (devices.empty() || (one_place && devices.front().is_cpu())) {
    return nest(make_thread_group(size, options.timeout),
                alone ? nullptr : options.processes->communicator());
  }
  if constexpr (kWithCuda) {
    const auto comes_once = [&](Device device) {
      return device.is_cuda() && std::ranges::count(devices, device) == 1;
    };
    const auto by_nccl = [&](std::span<const Device> places) {
      const NcclOptions nccl{.timeout = options.timeout, .sum_order = options.sum_order};
      if (alone) {
        return make_nccl_group(places, nccl);
      }
      const std::shared_ptr<Rendezvous> rendezvous(options.processes, &options.processes->rendezvous());
      return join_nccl_group(rendezvous, places, nccl);
    };
    if (one_place && (alone || size > 1)) {
      return nest(make_device_group(size, devices.front(), options.timeout),
                  alone ? nullptr : std::move(by_nccl(devices.first(1)).front()));
    }
    if (std::ranges::all_of(devices, comes_once)) {
      return by_nccl(devices);
    }
  }
  std::string names;
  for (const Device device : devices) {
    names += (names.empty() ? "" : ", ") + device.to_string();
  }
  throw InputError(
      "group: got replicas on {}, expected all on the CPU, all on one GPU, or each on a GPU of its own",
      names);
}

}  // namespace millrace
