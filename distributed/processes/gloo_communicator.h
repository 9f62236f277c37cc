#pragma once

#include <memory>

#include "distributed/processes/message_communicator.h"

namespace millrace {

/// A group of processes that Gloo connects by TCP, each with each; all processes of the run call it.
/// @throws CommunicatorError when they cannot be connected within the rendezvous' timeout.
std::unique_ptr<Communicator> make_gloo_communicator(std::shared_ptr<Rendezvous> rendezvous,
                                                     SumOrder sum_order);

}  // namespace millrace
