#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "distributed/operation.h"

namespace millrace {

/// Where the members of a group publish how far they are and learn that the group has ended. Members that are
/// threads share it in memory; between processes it travels by whatever joined them. Every function may be
/// called from any thread and returns at once.
class GroupBoard {
 public:
  struct Reached {
    std::uint64_t number = 0;  ///< Of operations begun.
    Operation operation = Operation::none;
  };

  virtual ~GroupBoard() = default;
  virtual int size() const = 0;
  virtual void reach(int rank, Reached reached) = 0;
  /// What a rank last reached, where that is known here.
  virtual std::optional<Reached> reached(int rank) const = 0;
  /// Ends the group with a reason; the first one counts.
  virtual void end(const std::string& reason) = 0;
  /// By one who may only follow another's failure: gives word of that a moment to come.
  virtual void end_unless_told(const std::string& reason) { end(reason); }
  /// Empty while the group goes on.
  virtual std::string reason() const = 0;

  /// Of the ranks known here: "rank 0 reached all_reduce (operation 7), rank 1 reached ..."
  std::string describe() const;
  /// What a rank that is in operation `number` has to know: the reason of the end, or that a peer has left
  /// before; else empty.
  std::string bad_news(std::uint64_t number) const;
};

/// For members that are threads of this process.
std::shared_ptr<GroupBoard> make_shared_board(int size);

}  // namespace millrace
