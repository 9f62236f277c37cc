#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/shards.h"

namespace millrace {

/// Sums over ranks that have unequal numbers of shards, 3 for 8 say, on the tree over the shards: each rank
/// gives the sums of its subtrees, all get all of them, and each adds them up in the tree's order.
class SubtreeSum {
 public:
  /// For tensors like `total`, f32 of one dimension. Every rank has at least one of the `shards`.
  SubtreeSum(int shards, const Tensor& total, Communicator& communicator);

  /// This rank's subtrees.
  const std::vector<ShardRange>& subtrees() const { return mine_; }
  /// The sum over subtree number `index`.
  void give(std::size_t index, const Tensor& sum);
  /// Puts the sum over all shards into `total`. Changes what was given. @throws CommunicatorError
  void finish(Tensor& total);

 private:
  struct Place {
    ShardRange subtree;
    std::int64_t row;  // in `gathered_`
  };
  /// The sum over a subtree of the tree: a view into what was gathered, [begin, end) of its row.
  Tensor sum(ShardRange range, std::int64_t count);

  Communicator& communicator_;
  int shards_;
  std::vector<ShardRange> mine_;
  std::vector<Place> places_;
  Tensor given_;     // [most subtrees of a rank, elements]
  Tensor gathered_;  // a block of all ranks' rows
};

}  // namespace millrace
