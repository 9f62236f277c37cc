#pragma once

#include <memory>

#include "distributed/group_board.h"
#include "distributed/rendezvous/rendezvous.h"

namespace millrace {

/// For members in several processes: of its own it knows how far they are, of the others that they failed.
/// Ranks `first` and following, `local` of them, are this process's. The first one's operations are counted
/// for the others, who name a process that stays away.
std::shared_ptr<GroupBoard> make_rendezvous_board(std::shared_ptr<Rendezvous> rendezvous, int first,
                                                  int local);

}  // namespace millrace
