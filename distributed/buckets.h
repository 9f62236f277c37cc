#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "distributed/communicator.h"

namespace millrace {

/// A part [begin, end) of a flat buffer, in elements.
using OnPart = std::function<void(std::int64_t begin, std::int64_t end)>;

struct BucketOptions {
  /// A bucket is closed once it holds so much; 0 makes one bucket of everything.
  std::int64_t bucket_bytes = 0;
  OnPart prepare;  ///< Called right before a bucket is summed over the ranks.
  OnPart summed;   ///< Called right after it.
};

/// What `bucket_bytes` should be where sums run beside the backward pass, as on GPUs: a quarter of the
/// gradients, but 0.5 to 25 MB.
std::int64_t overlapping_bucket_bytes(std::int64_t gradient_bytes);

/// Sends a flat buffer to the other ranks in contiguous buckets, each as soon as the pieces in it are ready.
///
/// Buckets go out in the order of the buffer, which is the same on all ranks, so a bucket that fills early
/// waits for those before it. The last one, whose sum nothing hides, is made the smallest. The cut never
/// changes a bit of the result where sums are taken element by element.
///
/// On a GPU sums run on a stream of their own: each waits for what the current stream holds when its bucket
/// goes out, `summed` enqueues there as well, and what is enqueued after `finish` waits for all of them.
class Buckets {
 public:
  /// `buffer`: f32, one dimension. `offsets`: where each piece begins, ascending from 0; what lies behind the
  /// last piece goes with the last bucket.
  Buckets(Tensor buffer, std::span<const std::int64_t> offsets, Communicator& communicator,
          BucketOptions options = {});

  int count() const { return static_cast<int>(buckets_.size()); }
  /// Piece i is final; each piece at most once before `finish`.
  void ready(std::size_t piece);
  /// Sends what has not gone out yet; then everything is summed, and the next round may begin.
  void finish();
  /// Where sums run.
  const Stream& stream() const { return stream_; }

 private:
  struct Bucket {
    std::int64_t begin, end;  // elements
    int pieces;
    int missing;
  };
  void cut(std::span<const std::int64_t> offsets);
  void send(const Bucket& bucket);

  Tensor buffer_;
  Communicator& communicator_;
  BucketOptions options_;
  std::vector<Bucket> buckets_;
  std::vector<std::size_t> bucket_of_;  // by piece
  std::size_t next_ = 0;                // the first bucket that has not gone out
  Stream stream_;
  Event filled_, summed_;
};

}  // namespace millrace
