#include "distributed/group/process_group.h"

#include <charconv>

#include "base/error.h"
#include "distributed/group/join.h"
#include "distributed/processes/gloo_communicator.h"
#include "distributed/processes/mpi_communicator.h"
#include "distributed/rendezvous/rendezvous.h"
#include "distributed/threads/communicator.h"
#include "tensor/config.h"

namespace millrace {
namespace {

/// `millrace launch` listens before it starts the ranks, so that nobody can take the port in between.
Socket inherited_listener(const Place& place) {
  const auto text = from_environment("MILLRACE_LISTENER");
  int descriptor = -1;
  if (!text || place.rank != 0 ||
      std::from_chars(text->data(), text->data() + text->size(), descriptor).ec != std::errc()) {
    return Socket();
  }
  return Socket(descriptor);
}

Engine choose(Engine engine, const Place& place) {
  const bool by_mpirun = place.told_by.starts_with("OMPI_") || place.told_by.starts_with("PMI_");
  if (engine == Engine::automatic) {
    engine = kWithMpi && by_mpirun && place.master_host.empty() ? Engine::mpi : Engine::gloo;
  }
  if (engine == Engine::mpi && !kWithMpi) {
    throw InputError("engine mpi: this build is without MPI; configure with -DMILLRACE_MPI=ON, or use gloo");
  }
  return engine;
}

}  // namespace

Engine parse_engine(std::string_view name) {
  if (name == "auto") {
    return Engine::automatic;
  }
  if (name == "gloo") {
    return Engine::gloo;
  }
  if (name == "mpi") {
    return Engine::mpi;
  }
  throw InputError("engine: got '{}', expected auto, gloo or mpi", name);
}

ProcessGroup::ProcessGroup(const Place& place, const ProcessGroupOptions& options) {
  if (place.size == 1) {
    rendezvous_ = std::make_shared<Rendezvous>(place, options.timeout);
    communicator_ = std::move(make_thread_group(1).front());
    return;
  }
  if (choose(options.engine, place) == Engine::mpi) {
    if constexpr (kWithMpi) {
      std::tie(rendezvous_, communicator_) = make_mpi_communicator(place, options.timeout, options.sum_order);
    }
    return;
  }
  rendezvous_ = std::make_shared<Rendezvous>(place, options.timeout, inherited_listener(place));
  communicator_ = make_gloo_communicator(rendezvous_, options.sum_order);
}

const Place& ProcessGroup::place() const { return rendezvous_->place(); }

}  // namespace millrace
