#pragma once

#include <chrono>
#include <memory>
#include <string_view>

#include "distributed/communicator.h"
#include "distributed/rendezvous/place.h"

namespace millrace {

class Rendezvous;

/// What carries tensors between processes; `automatic` is MPI for processes that mpirun started without
/// saying where rank 0 listens, else Gloo.
enum class Engine : std::uint8_t { automatic, gloo, mpi };

/// @throws InputError that lists them.
Engine parse_engine(std::string_view name);

struct ProcessGroupOptions {
  Engine engine = Engine::automatic;
  SumOrder sum_order = SumOrder::tree;
  /// How long a process waits for the others before it names who is missing.
  std::chrono::duration<double> timeout = std::chrono::minutes(5);
};

/// The processes of a run, of which this is one. Made by all of them alike.
///
/// A process that ends without telling the others is found dead by them; `fail` tells them why.
class ProcessGroup {
 public:
  /// @throws InputError, MachineError or CommunicatorError when the processes cannot be connected.
  explicit ProcessGroup(const Place& place, const ProcessGroupOptions& options = {});

  /// Filled in where the engine knew more.
  const Place& place() const;
  int rank() const { return place().rank; }
  int size() const { return place().size; }
  const std::shared_ptr<Communicator>& communicator() const { return communicator_; }
  /// Exchanges texts, and knows who failed (distributed/rendezvous/rendezvous.h); not for users.
  Rendezvous& rendezvous() const { return *rendezvous_; }

 private:
  std::shared_ptr<Rendezvous> rendezvous_;
  std::shared_ptr<Communicator> communicator_;
};

}  // namespace millrace
