#pragma once

#include <cstdint>
#include <vector>

namespace millrace {

/// Neighbouring leaves of the tree of shards.
struct ShardRange {
  int first = 0, count = 0;
  int end() const { return first + count; }
  bool operator==(const ShardRange&) const = default;
};

/// Which of `shards` rank `rank` of `ranks` does: neighbours, as equally many as may be.
ShardRange shards_of(int rank, int ranks, int shards);

/// The fewest subtrees of the tree that make up a range, in its order: a power of two of shards each, and
/// beginning at a multiple of it.
std::vector<ShardRange> subtrees_of(ShardRange range);

}  // namespace millrace
