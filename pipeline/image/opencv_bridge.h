#pragma once

#include <opencv2/core/mat.hpp>

#include "tensor/tensor.h"

namespace millrace {

/// A matrix over a CPU tensor's memory: of [H, W], or of an image [C, H, W] in channels-last memory (as
/// `batch.images()[0]` is) with C channels. Rows may lie apart. It must not outlive the tensor's memory.
/// @throws InputError on another shape or order (`contiguous(MemoryFormat::channels_last)` of the batch gives
/// this one), or a type that OpenCV lacks (bf16, i64).
cv::Mat to_mat(const Tensor& image);

/// A tensor over a matrix's memory, which it keeps alive: [H, W] of one channel, else [C, H, W]
/// (channels-last).
/// @throws InputError on a matrix of more than two dimensions or of signed or unsigned shorts or signed
/// bytes.
Tensor from_mat(const cv::Mat& image);

}  // namespace millrace
