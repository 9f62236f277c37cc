#include "distributed/subtree_sum.h"

#include <algorithm>

namespace millrace {
namespace {

/// Elements gathered at a time, which bounds the memory.
constexpr std::int64_t kBlock = 1 << 18;

}  // namespace

SubtreeSum::SubtreeSum(int shards, const Tensor& total, Communicator& communicator)
    : communicator_(communicator), shards_(shards) {
  const int ranks = communicator.size();
  std::int64_t rows = 0;
  for (int r = 0; r < ranks; ++r) {
    rows = std::max(rows, std::ssize(subtrees_of(shards_of(r, ranks, shards))));
  }
  for (int r = 0; r < ranks; ++r) {
    const std::vector<ShardRange> subtrees = subtrees_of(shards_of(r, ranks, shards));
    for (std::int64_t i = 0; i < std::ssize(subtrees); ++i) {
      places_.push_back({.subtree = subtrees[static_cast<std::size_t>(i)], .row = r * rows + i});
    }
    if (r == communicator.rank()) {
      mine_ = subtrees;
    }
  }
  const TensorOptions options{.device = total.device()};
  given_ = zeros({rows, total.numel()}, options);
  gathered_ = zeros({ranks * rows * std::min(kBlock, total.numel())}, options);
}

void SubtreeSum::give(std::size_t index, const Tensor& sum) {
  given_.narrow(0, static_cast<std::int64_t>(index), 1).view(sum.shape()).copy_(sum);
}

void SubtreeSum::finish(Tensor& total) {
  const std::int64_t rows = given_.size(0), elements = given_.size(1);
  for (std::int64_t at = 0; at < elements; at += kBlock) {
    const std::int64_t count = std::min(kBlock, elements - at);
    Tensor all = gathered_.narrow(0, 0, communicator_.size() * rows * count);
    communicator_.all_gather(given_.narrow(1, at, count).contiguous(), all);
    total.narrow(0, at, count).copy_(sum({.first = 0, .count = shards_}, count));
  }
}

Tensor SubtreeSum::sum(ShardRange range, std::int64_t count) {
  const auto place = std::ranges::find(places_, range, &Place::subtree);
  if (place != places_.end()) {
    return gathered_.narrow(0, place->row * count, count);
  }
  const int half = range.count / 2;
  Tensor left = sum({.first = range.first, .count = half}, count);
  left.add_(sum({.first = range.first + half, .count = half}, count));
  return left;
}

}  // namespace millrace
