#include "base/cores.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <sched.h>
#include <string>
#include <thread>

namespace millrace {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

/// Version 2: "200000 100000" or "max 100000", microseconds in each period.
double read_v2(const std::filesystem::path& group) {
  std::ifstream file(group / "cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) {
    return kNoLimit;
  }
  return std::stod(quota) / period;
}

/// Version 1: the two numbers in a file each; the quota is -1 without a limit.
double read_v1(const std::filesystem::path& group) {
  double quota = 0, period = 0;
  if (!(std::ifstream(group / "cpu.cfs_quota_us") >> quota) || quota <= 0) {
    return kNoLimit;
  }
  if (!(std::ifstream(group / "cpu.cfs_period_us") >> period) || period <= 0) {
    return kNoLimit;
  }
  return quota / period;
}

/// The lowest limit from `group` up to the root of the hierarchy. In a container the upper part of the path
/// is often not visible: missing files count as no limit.
template <typename Read>
double lowest(const std::filesystem::path& root, std::filesystem::path group, Read read) {
  double limit = read(root);
  for (; group.has_relative_path(); group = group.parent_path()) {
    limit = std::min(limit, read(root / group.relative_path()));
  }
  return limit;
}

bool lists_cpu(const std::string& controllers) {
  return ("," + controllers + ",").find(",cpu,") != std::string::npos;
}

}  // namespace

double cgroup_core_limit(const std::filesystem::path& membership, const std::filesystem::path& mount) {
  double limit = kNoLimit;
  std::ifstream file(membership);
  // Lines are "number:controllers:path"; version 2 has number 0 and no controllers.
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) {
      continue;
    }
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::filesystem::path group = line.substr(second + 1);
    if (controllers.empty()) {
      limit = std::min(limit, lowest(mount, group, read_v2));
    } else if (lists_cpu(controllers)) {
      limit = std::min(
          {limit, lowest(mount / controllers, group, read_v1), lowest(mount / "cpu", group, read_v1)});
    }
  }
  return limit;
}

int available_cores() {
  // The mask has room for 1024 processors; on larger machines the call fails and the plain count stands in.
  cpu_set_t mask;
  const bool known = sched_getaffinity(0, sizeof(mask), &mask) == 0;
  const int cores = known ? CPU_COUNT(&mask) : static_cast<int>(std::thread::hardware_concurrency());
  const double limit = cgroup_core_limit("/proc/self/cgroup", "/sys/fs/cgroup");
  return std::max(1, static_cast<int>(std::min(static_cast<double>(cores), limit)));
}

}  // namespace millrace
