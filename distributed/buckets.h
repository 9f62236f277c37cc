#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "distributed/communicator.h"

namespace millrace {

/// Sends a flat buffer to the other ranks in contiguous buckets, each as soon as the pieces in it are ready.
///
/// Buckets go out in the order of the buffer, which is the same on all ranks, so a bucket that fills early
/// waits for those before it. The cut never changes a bit of the result: sums are taken element by element.
class Buckets {
 public:
  /// Called with the part [begin, end) of the buffer, in elements, right before it is summed over the ranks.
  using Prepare = std::function<void(std::int64_t begin, std::int64_t end)>;

  /// `buffer`: f32, one dimension. `offsets`: where each piece begins, ascending from 0; what lies behind the
  /// last piece goes with the last bucket. A bucket is closed once it holds `bucket_bytes`; 0 makes one
  /// bucket of everything.
  Buckets(Tensor buffer, std::span<const std::int64_t> offsets, std::int64_t bucket_bytes,
          Communicator& communicator, Prepare prepare);

  int count() const { return static_cast<int>(buckets_.size()); }
  /// Piece i is final; each piece at most once before `finish`.
  void ready(std::size_t piece);
  /// Sends what has not gone out yet; then everything is summed, and the next round may begin.
  void finish(const Stream& stream = {});

 private:
  struct Bucket {
    std::int64_t begin, end;  // elements
    int pieces;
    int missing;
  };
  void send(Bucket& bucket, const Stream& stream);

  Tensor buffer_;
  std::vector<Bucket> buckets_;
  std::vector<std::size_t> bucket_of_;  // by piece
  std::size_t next_ = 0;                // the first bucket that has not gone out
  Communicator& communicator_;
  Prepare prepare_;
};

}  // namespace millrace
