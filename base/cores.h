#pragma once

#include <filesystem>

namespace millrace {

/// The cores this process may use: its affinity mask, capped by the cgroup's CPU limit.
int available_cores();

/// How many cores' worth of time the control groups of this process allow, fractions included; infinity
/// without a limit. Reads versions 1 and 2 at every level above the process. `membership` is
/// /proc/self/cgroup, `mount` where they hang.
double cgroup_core_limit(const std::filesystem::path& membership, const std::filesystem::path& mount);

}  // namespace millrace
