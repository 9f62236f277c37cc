#pragma once

#include <memory>

namespace millrace {

struct TravellingLosses;

/// The loss of a step, as a number. On GPUs it may still be computed: reading it waits for that.
class StepLoss {
 public:
  StepLoss(double value = 0) : value_(value) {}  // NOLINT: it is a number
  explicit StepLoss(std::shared_ptr<const TravellingLosses> losses);
  /// Whether reading it would not wait.
  bool ready() const;
  operator double() const;  // NOLINT: it is a number

 private:
  mutable std::shared_ptr<const TravellingLosses> losses_;  // null once `value_` is there
  mutable double value_ = 0;
};

}  // namespace millrace
