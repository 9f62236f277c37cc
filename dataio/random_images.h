#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dataio/dataset.h"

namespace millrace {

/// Random pixels in memory, the same in every run, with labels in turn: for measurements and checks.
class RandomImages : public Dataset {
 public:
  struct Form {
    int channels = 3, height = 32, width = 32, classes = 10;
  };
  RandomImages(std::int64_t count, const Form& form);
  std::int64_t size() const override { return count_; }
  const DatasetInfo& info() const override { return info_; }
  std::string describe(std::int64_t index) const override;
  Sample read(std::int64_t index, std::vector<std::byte>& scratch) const override;

 private:
  std::int64_t count_;
  DatasetInfo info_;
  std::size_t image_bytes_;
  std::vector<std::byte> pixels_;
};

}  // namespace millrace
