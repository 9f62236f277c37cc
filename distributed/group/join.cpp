#include "distributed/group/join.h"

#include <array>
#include <charconv>
#include <cstdlib>

#include "base/error.h"
#include "distributed/rendezvous/socket.h"

namespace millrace {
namespace {

/// The names under which one way of starting processes tells them who they are.
struct Names {
  const char *rank, *size, *local_rank, *local_size, *job;
};

// PMI itself says nothing of the machine; MPICH's launcher adds MPI_LOCAL*. Slurm sets SLURM_PROCID and
// SLURM_NTASKS in a batch script as well, which is one process: only a step has SLURM_STEP_NUM_TASKS.
constexpr std::array<Names, 4> kNames{{
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", "PMIX_NAMESPACE"},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "PMI_JOBID"},
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_JOB_ID"},
}};

std::optional<int> read_int(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

std::optional<int> read_variable(const Environment& environment, const char* name) {
  const std::optional<std::string> text = environment(name);
  if (!text) {
    return std::nullopt;
  }
  // Slurm's tasks per node read "4(x2),3": the first nodes' count stands for all.
  const std::optional<int> value = read_int(text->substr(0, text->find_first_of("(,")));
  if (!value) {
    throw InputError("joining: {} is '{}', expected a whole number", name, *text);
  }
  return value;
}

void set_place(Place& place, const Names& names, std::optional<int> rank, std::optional<int> size) {
  if (!rank || !size) {
    throw InputError("joining: {} is given and {} is not; give both, or neither to train in one process",
                     rank ? names.rank : names.size, rank ? names.size : names.rank);
  }
  if (*size < 1 || *rank < 0 || *rank >= *size) {
    throw InputError("joining: {} is {} and {} is {}; ranks count from 0 to one below the size", names.rank,
                     *rank, names.size, *size);
  }
  place.rank = *rank;
  place.size = *size;
  place.told_by = names.rank;
}

/// Without a word on it, the processes are taken for those of one machine when rank 0 is on this one.
void set_local(Place& place, const Names& names, std::optional<int> local_rank,
               std::optional<int> local_size) {
  place.local_rank = local_rank.value_or(local_size ? 0 : place.rank);
  place.local_size =
      local_size.value_or(local_rank && *local_rank != place.rank ? *local_rank + 1 : place.size);
  if (place.local_rank < 0 || place.local_rank >= place.local_size || place.local_size > place.size) {
    throw InputError(
        "joining: {} is {} and {} is {} for {} of {}; of a machine's processes, they count from 0, and "
        "are no more than all",
        names.local_rank, place.local_rank, names.local_size, place.local_size, names.size, place.size);
  }
}

void set_master(Place& place, const PlaceFlags& flags, const Environment& environment) {
  std::string host, port;
  const char* told_by = "--master";
  if (!flags.master.empty()) {
    const std::size_t colon = flags.master.rfind(':');
    if (colon == std::string::npos) {
      throw InputError("joining: --master is '{}', expected HOST:PORT of rank 0", flags.master);
    }
    host = flags.master.substr(0, colon);
    port = flags.master.substr(colon + 1);
  } else {
    const auto address = environment("MASTER_ADDR"), number = environment("MASTER_PORT");
    if (!address && !number) {
      return;
    }
    if (!address || !number) {
      throw InputError("joining: {} is set and {} is not; set both, or give --master HOST:PORT",
                       address ? "MASTER_ADDR" : "MASTER_PORT", address ? "MASTER_PORT" : "MASTER_ADDR");
    }
    host = *address;
    port = *number;
    told_by = "MASTER_ADDR with MASTER_PORT";
  }
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  }
  const std::optional<int> number = read_int(port);
  if (!may_be_host(host) || !number || *number < 1 || *number > 65535) {
    throw InputError("joining: {} is '{}:{}', expected a name or an address and a port from 1 to 65535",
                     told_by, host, port);
  }
  place.master_host = host;
  place.master_port = *number;
}

}  // namespace

std::optional<std::string> from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

Place find_place(const PlaceFlags& flags, const Environment& environment) {
  Place place;
  constexpr Names kFlags{"--rank", "--world-size", "--local-rank", "LOCAL_WORLD_SIZE", nullptr};
  if (flags.rank || flags.size) {
    set_place(place, kFlags, flags.rank, flags.size);
    set_local(place, kFlags, flags.local_rank, read_variable(environment, kFlags.local_size));
  } else if (flags.local_rank) {
    throw InputError("joining: --local-rank is given without --rank and --world-size; give all three");
  } else {
    for (const Names& names : kNames) {
      const auto rank = read_variable(environment, names.rank), size = read_variable(environment, names.size);
      if (!rank && !size) {
        continue;
      }
      if (size || names.rank != kNames.back().rank) {
        set_place(place, names, rank, size);
        set_local(place, names, read_variable(environment, names.local_rank),
                  read_variable(environment, names.local_size));
        place.token = environment(names.job).value_or("");
        break;
      }
    }
  }
  set_master(place, flags, environment);
  place.token = environment("MILLRACE_RUN_TOKEN").value_or(place.token);
  return place;
}

}  // namespace millrace
