#pragma once

#include <cstdint>
#include <vector>

#include "pipeline/training/peers.h"
#include "pipeline/training/trainer.h"

namespace millrace {

/// The predictions of an evaluation, counted by class; of no class before the first one.
class ClassCounts {
 public:
  explicit ClassCounts(bool confusion = false) : confusion_(confusion) {}

  /// A confusion matrix that is wanted is left out where there are more than kMostConfusionClasses.
  void resize(std::int64_t classes);
  std::int64_t classes() const { return classes_; }
  void add(std::int64_t label, std::int64_t prediction);
  /// Either may be of no class.
  void add(const ClassCounts& other);
  /// Becomes the sum over all processes, of which some may have counted nothing.
  void add_up(Peers& peers);
  void put_into(Evaluation& evaluation) const;

 private:
  bool confusion_;
  std::int64_t classes_ = 0;
  // Right ones and all of each class, then, where it is wanted, the confusion matrix, row by row.
  std::vector<std::int64_t> numbers_;
};

}  // namespace millrace
