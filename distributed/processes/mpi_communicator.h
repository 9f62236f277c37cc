#pragma once

#include <chrono>
#include <memory>
#include <utility>

#include "distributed/processes/message_communicator.h"

namespace millrace {

/// A group of the processes that mpirun started, and their rendezvous, whose address travels by MPI where
/// `place` has none. One thread makes every call of MPI and sleeps between looks at what is on its way. One
/// such group a process. Only in builds with MILLRACE_MPI.
/// @throws InputError when MPI counts other processes than `place`. @throws CommunicatorError
std::pair<std::shared_ptr<Rendezvous>, std::unique_ptr<Communicator>> make_mpi_communicator(
    Place place, std::chrono::duration<double> timeout, SumOrder sum_order);

}  // namespace millrace
