#include "distributed/shards.h"

#include <algorithm>
#include <bit>

namespace millrace {

ShardRange shards_of(int rank, int ranks, int shards) {
  const auto begin = [&](std::int64_t r) { return static_cast<int>(r * shards / ranks); };
  return {.first = begin(rank), .count = begin(rank + 1) - begin(rank)};
}

std::vector<ShardRange> subtrees_of(ShardRange range) {
  std::vector<ShardRange> subtrees;
  while (range.count > 0) {
    unsigned size = std::bit_floor(static_cast<unsigned>(range.count));
    if (range.first > 0) {
      size = std::min(size, 1U << std::countr_zero(static_cast<unsigned>(range.first)));
    }
    const int count = static_cast<int>(size);
    subtrees.push_back({range.first, count});
    range = {.first = range.first + count, .count = range.count - count};
  }
  return subtrees;
}

}  // namespace millrace
