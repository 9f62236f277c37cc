#pragma once

#include <string>

namespace millrace {

/// Where a process stands in a run of several.
struct Place {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  ///< Among the processes of the run on this machine.
  std::string master_host;             ///< Where rank 0 listens; empty when nothing says so.
  int master_port = 0;
  std::string token;    ///< The same in all processes of a run, and another in other runs.
  std::string told_by;  ///< "--rank", "RANK", "OMPI_COMM_WORLD_RANK", ...; empty: nobody, alone.
  bool operator==(const Place&) const = default;
};

}  // namespace millrace
