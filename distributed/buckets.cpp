#include "distributed/buckets.h"

namespace millrace {

Buckets::Buckets(Tensor buffer, std::span<const std::int64_t> offsets, std::int64_t bucket_bytes,
                 Communicator& communicator, Prepare prepare)
    : buffer_(std::move(buffer)), communicator_(communicator), prepare_(std::move(prepare)) {
  const auto element = static_cast<std::int64_t>(size_of(buffer_.dtype()));
  for (const std::int64_t offset : offsets) {
    const bool full =
        !buckets_.empty() && bucket_bytes > 0 && (offset - buckets_.back().begin) * element >= bucket_bytes;
    if (buckets_.empty() || full) {
      const std::int64_t begin = buckets_.empty() ? 0 : offset;
      if (full) {
        buckets_.back().end = offset;
      }
      buckets_.push_back({.begin = begin, .end = 0, .pieces = 0, .missing = 0});
    }
    ++buckets_.back().pieces;
    ++buckets_.back().missing;
    bucket_of_.push_back(buckets_.size() - 1);
  }
  if (buckets_.empty()) {
    buckets_.push_back({.begin = 0, .end = 0, .pieces = 0, .missing = 0});
  }
  buckets_.back().end = buffer_.numel();
}

void Buckets::ready(std::size_t piece) {
  --buckets_[bucket_of_[piece]].missing;
  // The last one waits for `finish`: what lies behind its pieces is known only then.
  while (next_ + 1 < buckets_.size() && buckets_[next_].missing == 0) {
    send(buckets_[next_++], {});
  }
}

void Buckets::finish(const Stream& stream) {
  while (next_ < buckets_.size()) {
    send(buckets_[next_++], stream);
  }
  for (Bucket& bucket : buckets_) {
    bucket.missing = bucket.pieces;
  }
  next_ = 0;
}

void Buckets::send(Bucket& bucket, const Stream& stream) {
  if (prepare_) {
    prepare_(bucket.begin, bucket.end);
  }
  Tensor part = buffer_.narrow(0, bucket.begin, bucket.end - bucket.begin);
  communicator_.all_reduce(part, stream);
}

}  // namespace millrace
