#pragma once

#include <memory>
#include <vector>

#include "dataio/dataset.h"

namespace millrace {

/// Some samples of another data set, in an order of their own.
class Subset final : public Dataset {
 public:
  /// Sample i is sample `indices[i]` of `whole`.
  Subset(std::shared_ptr<const Dataset> whole, std::vector<std::int64_t> indices)
      : whole_(std::move(whole)), indices_(std::move(indices)) {}

  std::int64_t size() const override { return static_cast<std::int64_t>(indices_.size()); }
  const DatasetInfo& info() const override { return whole_->info(); }
  Sample read(std::int64_t index, std::vector<std::byte>& scratch) const override {
    return whole_->read(of_whole(index), scratch);
  }
  std::int64_t label(std::int64_t index) const override { return whole_->label(of_whole(index)); }
  std::string describe(std::int64_t index) const override { return whole_->describe(of_whole(index)); }
  std::uint64_t fingerprint(int version = kFingerprintVersion) const override;
  void will_need(std::span<const std::int64_t> indices) const override;

 private:
  std::int64_t of_whole(std::int64_t index) const { return indices_[static_cast<std::size_t>(index)]; }

  std::shared_ptr<const Dataset> whole_;
  std::vector<std::int64_t> indices_;
};

struct ValidationSplit {
  std::unique_ptr<Dataset> train, validation;
};

/// Holds out `fraction` of every class, rounded half up, for validation: the same samples for the same seed
/// on every machine. Both parts keep the order of `whole`.
/// @throws InputError unless 0 < fraction < 1 and both parts hold samples.
ValidationSplit split_validation(std::shared_ptr<const Dataset> whole, double fraction, std::uint64_t seed);

}  // namespace millrace
