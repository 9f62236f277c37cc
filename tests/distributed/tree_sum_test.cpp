#include "distributed/tree_sum.h"

#include <gtest/gtest.h>
#include <vector>

namespace millrace {
namespace {

// Each sum is absorbed or not depending on the order, so every other tree gives another number.
TEST(TreeSum, FollowsTheDocumentedTree) {
  const std::vector<float> v{1e8f, 3.0f, 5.0f, -1e8f, 7.0f, 2.5f, 1e-3f};
  const std::span<const float> all(v);
  EXPECT_EQ(tree_sum(all.first(1)), v[0]);
  EXPECT_EQ(tree_sum(all.first(2)), v[0] + v[1]);
  EXPECT_EQ(tree_sum(all.first(3)), (v[0] + v[1]) + v[2]);
  EXPECT_EQ(tree_sum(all.first(4)), (v[0] + v[1]) + (v[2] + v[3]));
  EXPECT_EQ(tree_sum(all.first(5)), ((v[0] + v[1]) + (v[2] + v[3])) + v[4]);
  EXPECT_EQ(tree_sum(all.first(6)), ((v[0] + v[1]) + (v[2] + v[3])) + (v[4] + v[5]));
  EXPECT_EQ(tree_sum(all), ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + v[6]));
  EXPECT_EQ(tree_sum(all.first(0)), 0.0f);
}

}  // namespace
}  // namespace millrace
