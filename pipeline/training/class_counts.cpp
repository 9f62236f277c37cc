#include "pipeline/training/class_counts.h"

#include <algorithm>

namespace millrace {

void ClassCounts::resize(std::int64_t classes) {
  classes_ = classes;
  confusion_ = confusion_ && classes <= kMostConfusionClasses;
  numbers_.assign(static_cast<std::size_t>(2 * classes + (confusion_ ? classes * classes : 0)), 0);
}

void ClassCounts::add(std::int64_t label, std::int64_t prediction) {
  const auto count = [&](std::int64_t place) { ++numbers_[static_cast<std::size_t>(place)]; };
  if (label == prediction) {
    count(2 * label);
  }
  count(2 * label + 1);
  if (confusion_) {
    count((2 + label) * classes_ + prediction);
  }
}

void ClassCounts::add(const ClassCounts& other) {
  if (classes_ == 0) {
    *this = other;
    return;
  }
  for (std::size_t i = 0; i < other.numbers_.size(); ++i) {
    numbers_[i] += other.numbers_[i];
  }
}

void ClassCounts::add_up(Peers& peers) {
  const auto here = static_cast<double>(classes_);
  const std::vector<double> everywhere = peers.all({&here, 1});
  if (classes_ == 0) {
    resize(static_cast<std::int64_t>(*std::ranges::max_element(everywhere)));
  }
  peers.sum(numbers_);
}

void ClassCounts::put_into(Evaluation& evaluation) const {
  for (auto number = numbers_.begin(); std::ssize(evaluation.classes) < classes_; number += 2) {
    evaluation.classes.push_back({.correct = number[0], .total = number[1]});
    evaluation.correct += number[0];
    evaluation.total += number[1];
  }
  for (auto row = numbers_.begin() + 2 * classes_; row != numbers_.end(); row += classes_) {
    evaluation.confusion.emplace_back(row, row + classes_);
  }
}

}  // namespace millrace
