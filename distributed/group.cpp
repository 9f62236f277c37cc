#include "distributed/group.h"

#include <algorithm>

#include "distributed/device_communicator.h"
#include "distributed/nccl_communicator.h"
#include "distributed/thread_communicator.h"
#include "tensor/config.h"
#include "tensor/error.h"

namespace millrace {

std::vector<std::unique_ptr<Communicator>> make_group(std::span<const Device> devices,
                                                      const GroupOptions& options) {
  const int size = static_cast<int>(devices.size());
  const auto is_same = [&](Device device) { return device == devices.front(); };
  const bool one_place = std::ranges::all_of(devices, is_same);
  if (devices.empty() || (one_place && devices.front().is_cpu())) {
    return make_thread_group(size, options.timeout);
  }
  if constexpr (kWithCuda) {
    const auto comes_once = [&](Device device) {
      return device.is_cuda() && std::ranges::count(devices, device) == 1;
    };
    if (one_place) {
      return make_device_group(size, devices.front(), options.timeout);
    }
    if (std::ranges::all_of(devices, comes_once)) {
      return make_nccl_group(devices, {.timeout = options.timeout, .sums = options.sums});
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
