#include <cmath>
#include <gtest/gtest.h>
#include <sstream>

#include "tensor/tensor.h"

namespace millrace {
namespace {

TEST(Print, RowsOfWholeNumbers) {
  EXPECT_EQ(ones({2, 2}).to_string(), " 1  1\n 1  1\n[f32 tensor of size 2x2]");
  EXPECT_EQ(tensor({{-1, 10}, {100, 0}}, {.dtype = DType::i32}).to_string(),
            "  -1   10\n 100    0\n[i32 tensor of size 2x2]");
}

TEST(Print, FourDigitsBehindThePoint) {
  EXPECT_EQ(tensor({{0.0155, 0.1107, -0.0685}}).to_string(),
            " 0.0155  0.1107 -0.0685\n[f32 tensor of size 1x3]");
  EXPECT_EQ(full({2, 2}, 4.5).to_string(), " 4.5000  4.5000\n 4.5000  4.5000\n[f32 tensor of size 2x2]");
}

TEST(Print, OneNumberARowForVectors) {
  EXPECT_EQ(full({2}, 2, {.dtype = DType::f64}).to_string(), " 2\n 2\n[f64 tensor of size 2]");
  EXPECT_EQ(full({}, 0.5, {.dtype = DType::bf16}).to_string(), " 0.5000\n[bf16 scalar]");
}

TEST(Print, HeadsEachMatrixOfMoreDimensions) {
  EXPECT_EQ(arange(0, 8).view({2, 1, 2, 2}).to_string(),
            "(0,0,.,.) = \n 0  1\n 2  3\n\n(1,0,.,.) = \n 4  5\n 6  7\n[f32 tensor of size 2x1x2x2]");
}

TEST(Print, ExtremesAndEmptiness) {
  EXPECT_EQ(tensor({1e-7, 1}).to_string(), " 1.0000e-07\n 1.0000e+00\n[f32 tensor of size 2]");
  EXPECT_EQ(tensor({HUGE_VAL, -HUGE_VAL, 1}).to_string(), " inf\n-inf\n   1\n[f32 tensor of size 3]");
  EXPECT_EQ(zeros({0, 3}).to_string(), "[f32 tensor of size 0x3]");
  EXPECT_EQ(Tensor().to_string(), "[undefined tensor]");
  std::ostringstream stream;
  stream << ones({1}).squeeze();
  EXPECT_EQ(stream.str(), " 1\n[f32 scalar]");
}

TEST(Print, FollowsStrides) {
  EXPECT_EQ(tensor({{1, 2}, {3, 4}}).t().to_string(), " 1  3\n 2  4\n[f32 tensor of size 2x2]");
}

}  // namespace
}  // namespace millrace
