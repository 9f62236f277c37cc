#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "distributed/group/process_group.h"
#include "distributed/shards.h"

namespace millrace {

/// What the processes of a training tell each other besides gradients. In a process alone, nothing travels.
class Peers {
 public:
  Peers(std::shared_ptr<ProcessGroup> group, int shards) : group_(std::move(group)), shards_(shards) {}

  int size() const { return group_ ? group_->size() : 1; }
  /// Those that this process does.
  ShardRange shards() const { return shards_of(group_ ? group_->rank() : 0, size(), shards_); }
  /// For the messages of the others.
  void set_step(std::int64_t step);
  /// Everybody's numbers, equally many of each, in the order of the ranks. @throws CommunicatorError
  std::vector<double> all(std::span<const double> mine);
  /// One number for each shard of the batch, from one for each shard of this process.
  std::vector<double> all_shards(std::span<const double> mine);
  /// Everybody's texts, in the order of the ranks. @throws CommunicatorError
  std::vector<std::string> texts(std::string_view about, const std::string& mine);
  /// Sums counts over the processes, in place. @throws CommunicatorError
  void sum(std::span<std::int64_t> counts);

 private:
  std::shared_ptr<ProcessGroup> group_;
  int shards_;
};

}  // namespace millrace
