#pragma once

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

/// The loss of a step, as a number. On GPUs it may still be computed: reading it waits for that.
class StepLoss {
 public:
  StepLoss(double value = 0) : value_(value) {}  // NOLINT: it is a number
  explicit StepLoss(std::shared_ptr<const TravellingLosses> losses) : losses_(std::move(losses)) {}
  /// Whether reading it would not wait.
  bool ready() const { return !losses_ || losses_->is_there(); }
  operator double() const;  // NOLINT: it is a number

 private:
  mutable std::shared_ptr<const TravellingLosses> losses_;  // null once `value_` is there
  mutable double value_ = 0;
};

}  // namespace millrace
