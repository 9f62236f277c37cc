#include "dataio/subset.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "tests/base/temporary_folder.h"

namespace millrace {
namespace {

using test::input_error;
using testing::AllOf;
using testing::HasSubstr;

/// Samples that are nothing but labels; `read` may not be called.
class Labels final : public Dataset {
 public:
  explicit Labels(std::vector<std::int64_t> labels) : labels_(std::move(labels)) {}
  std::int64_t size() const override { return static_cast<std::int64_t>(labels_.size()); }
  const DatasetInfo& info() const override { return info_; }
  Sample read(std::int64_t, std::vector<std::byte>&) const override { throw InputError("decoded"); }
  std::int64_t label(std::int64_t index) const override { return labels_[static_cast<std::size_t>(index)]; }
  std::string describe(std::int64_t index) const override { return std::to_string(index); }
  void will_need(std::span<const std::int64_t> indices) const override {
    needed.assign(indices.begin(), indices.end());
  }

  mutable std::vector<std::int64_t> needed;

 private:
  std::vector<std::int64_t> labels_;
  DatasetInfo info_;
};

/// 5 of class 0, 25 of class 7, 100 of class 3, 4 of class 9, mixed.
std::shared_ptr<Labels> mixed() {
  std::vector<std::int64_t> labels;
  for (int i = 0; i < 100; ++i) {
    labels.push_back(3);
    if (i % 4 == 0) {
      labels.push_back(7);
    }
    if (i % 20 == 0) {
      labels.push_back(0);
    }
    if (i % 25 == 0) {
      labels.push_back(9);
    }
  }
  return std::make_shared<Labels>(labels);
}

std::vector<std::string> members(const Dataset& part) {
  std::vector<std::string> names;
  for (std::int64_t i = 0; i < part.size(); ++i) {
    names.push_back(part.describe(i));
  }
  return names;
}

std::int64_t count(const Dataset& part, std::int64_t label) {
  std::int64_t n = 0;
  for (std::int64_t i = 0; i < part.size(); ++i) {
    n += part.label(i) == label;
  }
  return n;
}

TEST(SplitValidation, HoldsOutAPartOfEveryClassRoundedHalfUp) {
  const auto split = split_validation(mixed(), 0.1, 5);
  EXPECT_EQ(count(*split.validation, 0), 1);   // of 0.5
  EXPECT_EQ(count(*split.validation, 7), 3);   // of 2.5
  EXPECT_EQ(count(*split.validation, 3), 10);  // of 10
  EXPECT_EQ(count(*split.validation, 9), 0);   // of 0.4
}

TEST(SplitValidation, ThePartsAreDisjointAndComplete) {
  const auto whole = mixed();
  const auto split = split_validation(whole, 0.3, 1);
  std::set<std::string> all;
  for (const Dataset* part : {split.train.get(), split.validation.get()}) {
    const auto names = members(*part);
    EXPECT_TRUE(std::is_sorted(names.begin(), names.end(),
                               [](const auto& a, const auto& b) { return std::stoi(a) < std::stoi(b); }));
    all.insert(names.begin(), names.end());
  }
  EXPECT_EQ(split.train->size() + split.validation->size(), whole->size());
  EXPECT_EQ(static_cast<std::int64_t>(all.size()), whole->size());
}

TEST(SplitValidation, IsAFunctionOfTheSeed) {
  const auto whole = mixed();
  const auto one = split_validation(whole, 0.2, 1), again = split_validation(whole, 0.2, 1);
  const auto other = split_validation(whole, 0.2, 2);
  EXPECT_EQ(members(*one.validation), members(*again.validation));
  EXPECT_NE(members(*one.validation), members(*other.validation));
  EXPECT_EQ(one.train->fingerprint(), again.train->fingerprint());
  EXPECT_NE(one.train->fingerprint(), other.train->fingerprint());
  EXPECT_NE(one.train->fingerprint(), one.validation->fingerprint());
  // Frozen: a model that was selected on these must not meet them in training after an update.
  const auto frozen = split_validation(std::make_shared<Labels>(std::vector<std::int64_t>(20, 1)), 0.2, 0);
  EXPECT_THAT(members(*frozen.validation), testing::ElementsAre("5", "7", "12", "17"));
}

TEST(SplitValidation, FractionsThatLeaveNothingAreNamed) {
  for (const double fraction : {0.0, 1.0, -0.5, 2.0, std::nan("")}) {
    EXPECT_THAT(input_error([&] { split_validation(mixed(), fraction, 0); }), HasSubstr("fraction"));
  }
  EXPECT_THAT(input_error([&] { split_validation(mixed(), 0.001, 0); }),
              AllOf(HasSubstr("134 samples in 4 classes"), HasSubstr("0 to validate on")));
}

TEST(Subset, AdviceReachesTheWholeInItsOwnNumbers) {
  const auto whole = mixed();
  const Subset subset(whole, {9, 4, 2});
  subset.will_need(std::vector<std::int64_t>{2, 0});
  EXPECT_THAT(whole->needed, testing::ElementsAre(2, 9));
}

}  // namespace
}  // namespace millrace
