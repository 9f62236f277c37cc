#pragma once

#include <vector>

#include "tensor/device.h"

namespace millrace {

/// The first ones.
inline std::vector<Device> gpus(int count) {
  std::vector<Device> devices;
  for (int i = 0; i < count; ++i) {
    devices.push_back({Device::Kind::cuda, i});
  }
  return devices;
}

}  // namespace millrace
