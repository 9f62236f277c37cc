#pragma once

#include <functional>
#include <optional>
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

/// What the command line says; it comes before the environment.
struct PlaceFlags {
  std::optional<int> rank, size, local_rank;
  std::string master;  ///< HOST:PORT; for IPv6 [ADDRESS]:PORT.
};

/// A variable's value, or nothing.
using Environment = std::function<std::optional<std::string>(const char* name)>;
std::optional<std::string> from_environment(const char* name);

/// Finds out who this process is: from the flags, else torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK,
/// LOCAL_WORLD_SIZE), else OpenMPI's (OMPI_COMM_WORLD_*), else PMI's (PMI_RANK, PMI_SIZE), else those of a
/// step that Slurm's srun started; else it is alone. The master is `--master`, else MASTER_ADDR and
/// MASTER_PORT. The token is MILLRACE_RUN_TOKEN, else made of the number of a job that torchrun, OpenMPI or
/// Slurm gave.
///
/// @throws InputError when values are no numbers, do not fit each other, or half of them is missing.
Place find_place(const PlaceFlags& flags = {}, const Environment& environment = from_environment);

}  // namespace millrace
