#include "pipeline/image/opencv_bridge.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace millrace {
namespace {

TEST(OpenCvBridge, ATensorAndAMatrixShareMemoryBothWays) {
  Tensor batch = zeros({2, 3, 4, 5}, {.format = MemoryFormat::channels_last});
  cv::Mat mat = to_mat(batch[1]);
  EXPECT_EQ(mat.rows, 4);
  EXPECT_EQ(mat.cols, 5);
  EXPECT_EQ(mat.type(), CV_32FC3);
  mat.at<cv::Vec3f>(2, 3) = {7, 8, 9};
  for (int c = 0; c < 3; ++c) {
    EXPECT_EQ(batch.at({1, c, 2, 3}), 7 + c);
  }

  const Tensor back = from_mat(mat);
  EXPECT_EQ(back.shape(), (Shape{3, 4, 5}));
  EXPECT_EQ(back.raw(), batch[1].raw());
  EXPECT_EQ(back.at({2, 2, 3}), 9);
}

TEST(OpenCvBridge, KeepsTheMatrixAlive) {
  Tensor tensor;
  {
    const cv::Mat mat(3, 4, CV_8UC1, cv::Scalar(5));
    tensor = from_mat(mat);
  }
  EXPECT_EQ(tensor.shape(), (Shape{3, 4}));
  EXPECT_EQ(tensor.at({2, 3}), 5);
}

TEST(OpenCvBridge, PartsOfAMatrixHaveRowsApart) {
  cv::Mat whole(6, 8, CV_32SC2, cv::Scalar(0, 0));
  const cv::Mat part = whole(cv::Rect(2, 1, 3, 4));
  const Tensor tensor = from_mat(part);
  whole.at<cv::Vec2i>(1 + 3, 2 + 2) = {11, 12};
  EXPECT_EQ(tensor.shape(), (Shape{2, 4, 3}));
  EXPECT_EQ(tensor.at({1, 3, 2}), 12);
  EXPECT_EQ(to_mat(tensor).step[0], whole.step[0]);
}

TEST(OpenCvBridge, RefusesWhatTheOtherSideLacks) {
  EXPECT_THROW(to_mat(zeros({3, 4, 5})), InputError);  // planar
  EXPECT_THROW(to_mat(zeros({2, 2}, {.dtype = DType::i64})), InputError);
  EXPECT_THROW(to_mat(zeros({4})), InputError);
  EXPECT_THROW(from_mat(cv::Mat(2, 2, CV_16UC1)), InputError);
}

}  // namespace
}  // namespace millrace
