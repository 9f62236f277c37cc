#pragma once

#include <functional>
#include <optional>
#include <string>

#include "distributed/rendezvous/place.h"

namespace millrace {

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
