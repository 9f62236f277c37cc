#include "pipeline/image/opencv_bridge.h"

#include <opencv2/core.hpp>

namespace millrace {
namespace {

int depth_of(DType dtype) {
  switch (dtype) {
    case DType::u8:
      return CV_8U;
    case DType::i32:
      return CV_32S;
    case DType::f16:
      return CV_16F;
    case DType::f32:
      return CV_32F;
    case DType::f64:
      return CV_64F;
    default:
      throw InputError("to_mat: OpenCV has no {}; convert with to(DType::f32)", dtype);
  }
}

DType dtype_of_depth(int depth) {
  switch (depth) {
    case CV_8U:
      return DType::u8;
    case CV_32S:
      return DType::i32;
    case CV_16F:
      return DType::f16;
    case CV_32F:
      return DType::f32;
    case CV_64F:
      return DType::f64;
    default:
      throw InputError("from_mat: got a matrix of {}, which no tensor holds; convertTo CV_32F",
                       cv::typeToString(depth));
  }
}

}  // namespace

cv::Mat to_mat(const Tensor& image) {
  const bool plain = image.dim() == 2;
  if (!image.defined() || !image.device().is_cpu() || (!plain && image.dim() != 3)) {
    throw InputError("to_mat: got a tensor of shape {} on {}; expected [H, W] or [C, H, W] on the CPU",
                     image.shape(), image.device().to_string());
  }
  const int depth = depth_of(image.dtype());
  const Strides& strides = image.strides();
  const std::int64_t channels = plain ? 1 : image.size(0), height = image.size(-2), width = image.size(-1);
  const bool together = (channels == 1 || strides[0] == 1) && (width == 1 || strides[-1] == channels) &&
                        (height == 1 || strides[-2] >= width * channels);
  if (!together || channels < 1 || channels > CV_CN_MAX) {
    throw InputError(
        "to_mat: {} with strides {} does not hold its channels together; take channels-last memory",
        image.shape(), strides);
  }
  const auto row =
      static_cast<std::size_t>(height == 1 ? width * channels : strides[-2]) * size_of(image.dtype());
  return {static_cast<int>(height), static_cast<int>(width), CV_MAKETYPE(depth, static_cast<int>(channels)),
          image.raw(), row};
}

Tensor from_mat(const cv::Mat& image) {
  if (image.dims != 2) {
    throw InputError("from_mat: got a matrix of {} dimensions; expected 2", image.dims);
  }
  const DType dtype = dtype_of_depth(image.depth());
  const std::int64_t channels = image.channels();
  const auto row = static_cast<std::int64_t>(image.step[0] / size_of(dtype));
  const auto keep = [image] {};  // holds a count on the matrix's memory
  if (channels == 1) {
    return from_blob(image.data, {image.rows, image.cols}, {row, 1}, {.dtype = dtype}, keep);
  }
  return from_blob(image.data, {channels, image.rows, image.cols}, {1, row, channels}, {.dtype = dtype},
                   keep);
}

}  // namespace millrace
