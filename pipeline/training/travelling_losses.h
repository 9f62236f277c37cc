#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "distributed/communicator.h"

namespace millrace {

/// The losses of a step's shards on their way from GPUs to the host.
struct TravellingLosses {
  TravellingLosses() = default;
  ~TravellingLosses();
  TravellingLosses(const TravellingLosses&) = delete;
  TravellingLosses& operator=(const TravellingLosses&) = delete;
  bool is_there() const;
  /// @throws CommunicatorError when a peer that they wait behind failed, InputError for a label out of range.
  void wait() const;

  Tensor shards;               ///< f64, in pinned memory.
  std::vector<Event> arrived;  ///< One a replica: its step is done.
  std::vector<std::shared_ptr<Communicator>> group;

 private:
  void await() const;
};

/// Places for the losses of a trainer's steps, so that the host may run ahead of GPUs.
class LossPlaces {
 public:
  /// For steps of so many shards in this process, one replica for each member of `group`.
  LossPlaces(std::int64_t shards, std::vector<std::shared_ptr<Communicator>> group);
  /// Zeros in the place that was used longest ago of those that nobody reads any more, once nothing is on its
  /// way there. There are more places only where a caller keeps all unread.
  std::shared_ptr<TravellingLosses> next();

 private:
  static constexpr std::int64_t kMostAhead = 64;  // steps
  void add();

  std::int64_t shards_;
  std::vector<std::shared_ptr<Communicator>> group_;
  std::list<std::shared_ptr<TravellingLosses>> places_;  // the one used last at the end
};

}  // namespace millrace
