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

TEST(Print, TakesAPowerOfTenOutOfSmallAndLargeNumbers) {
  EXPECT_EQ(tensor({-0.081654, 0.014395}).to_string(),
            "1.00000e-02 *\n-8.1654\n 1.4395\n[f32 tensor of size 2]");
  EXPECT_EQ(tensor({123456.5, 1e5}).to_string(), "1.00000e+05 *\n 1.2346\n 1.0000\n[f32 tensor of size 2]");
}

TEST(Print, WideMatricesComeInGroupsOfColumns) {
  const std::string text = arange(0, 60).view({2, 30}).to_string();
  EXPECT_TRUE(text.starts_with("Columns 0 to 19\n  0   1   2")) << text;
  EXPECT_TRUE(
      text.ends_with("Columns 20 to 29\n 20  21  22  23  24  25  26  27  28  29\n"
                     " 50  51  52  53  54  55  56  57  58  59\n[f32 tensor of size 2x30]"))
      << text;
}

TEST(Print, ShowsTheEdgesOfLargeTensors) {
  EXPECT_EQ(arange(0, 1001).to_string(),
            "    0\n    1\n    2\n  ...\n  998\n  999\n 1000\n[f32 tensor of size 1001]");
  EXPECT_EQ(zeros({500, 10}).to_string(),
            " 0  0  0  ...  0  0  0\n 0  0  0  ...  0  0  0\n 0  0  0  ...  0  0  0\n...\n"
            " 0  0  0  ...  0  0  0\n 0  0  0  ...  0  0  0\n 0  0  0  ...  0  0  0\n"
            "[f32 tensor of size 500x10]");
  const std::string images = zeros({64, 2, 32, 32}, {.format = MemoryFormat::channels_last}).to_string();
  EXPECT_NE(images.find("(2,1,.,.) = \n"), std::string::npos) << images;
  EXPECT_NE(images.find("(61,0,.,.) = \n"), std::string::npos) << images;
  EXPECT_EQ(images.find("(3,0,.,.) = \n"), std::string::npos) << images;
}

TEST(Print, Shapes) {
  std::ostringstream stream;
  stream << ones({5, 3}).shape();
  EXPECT_EQ(stream.str(), "[5, 3]");
}

TEST(Print, FollowsStrides) {
  EXPECT_EQ(tensor({{1, 2}, {3, 4}}).t().to_string(), " 1  3\n 2  4\n[f32 tensor of size 2x2]");
}

}  // namespace
}  // namespace millrace
