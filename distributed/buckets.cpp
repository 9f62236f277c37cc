#include "distributed/buckets.h"

#include <algorithm>

namespace millrace {

std::int64_t overlapping_bucket_bytes(std::int64_t gradient_bytes) {
  return std::clamp<std::int64_t>(gradient_bytes / 4, 500'000, 25'000'000);
}

Buckets::Buckets(Tensor buffer, std::span<const std::int64_t> offsets, Communicator& communicator,
                 BucketOptions options)
    : buffer_(std::move(buffer)),
      communicator_(communicator),
      options_(std::move(options)),
      stream_(Stream::make(buffer_.device())) {
  cut(offsets);
  buffer_.storage()->record_stream(stream_);
}

void Buckets::cut(std::span<const std::int64_t> offsets) {
  const std::int64_t full = options_.bucket_bytes / static_cast<std::int64_t>(size_of(buffer_.dtype()));
  const auto closes = [&](std::int64_t offset) {
    const std::int64_t held = offset - buckets_.back().begin, left = buffer_.numel() - offset;
    return full > 0 && (held >= full || (held >= full / 2 && left <= full / 4));
  };
  buckets_.push_back({.begin = 0, .end = 0, .pieces = 0, .missing = 0});
  for (const std::int64_t offset : offsets) {
    if (closes(offset)) {
      buckets_.back().end = offset;
      buckets_.push_back({.begin = offset, .end = 0, .pieces = 0, .missing = 0});
    }
    ++buckets_.back().pieces;
    ++buckets_.back().missing;
    bucket_of_.push_back(buckets_.size() - 1);
  }
  buckets_.back().end = buffer_.numel();
}

void Buckets::ready(std::size_t piece) {
  --buckets_[bucket_of_[piece]].missing;
  // The last one waits for `finish`: what lies behind its pieces is known only then.
  while (next_ + 1 < buckets_.size() && buckets_[next_].missing == 0) {
    send(buckets_[next_++]);
  }
}

void Buckets::finish() {
  while (next_ < buckets_.size()) {
    send(buckets_[next_++]);
  }
  for (Bucket& bucket : buckets_) {
    bucket.missing = bucket.pieces;
  }
  next_ = 0;
  summed_.record(stream_);
  summed_.make_wait(current_stream(buffer_.device()));
}

void Buckets::send(const Bucket& bucket) {
  if (options_.prepare) {
    options_.prepare(bucket.begin, bucket.end);
  }
  filled_.record(current_stream(buffer_.device()));
  filled_.make_wait(stream_);
  const StreamGuard guard(stream_);
  Tensor part = buffer_.narrow(0, bucket.begin, bucket.end - bucket.begin);
  communicator_.all_reduce(part, stream_);
  if (options_.summed) {
    options_.summed(bucket.begin, bucket.end);
  }
}

}  // namespace millrace
