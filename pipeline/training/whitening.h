#pragma once

#include <memory>

#include "nn/layers/convolution.h"
#include "pipeline/image/loader.h"

namespace millrace {

/// Lets `conv` decorrelate patches: with the eigenvectors v and eigenvalues e of the patches' second moments
/// in `images` [N, C, H, W], filters are v / sqrt(e + eps), largest eigenvalue first, then the same negated.
/// Its bias stays as it is. arXiv 2404.00498; the idea is David Page's, "How to train your
/// ResNet 8", 2019.
///
/// Computed in double on this thread, so the same images give the same filters.
/// @throws InputError when `conv` has other than 2 C height width filters, or the images do not fit it.
void whiten(nn::Conv2d& conv, const Tensor& images, double eps = 5e-4);

/// The first `count` images of a data set (all, where there are fewer) as `options` transforms and normalizes
/// them, in f32 [n, C, H, W]; of its named transforms only what evaluation repeats, and all custom ones.
Tensor first_images(std::shared_ptr<const Dataset> dataset, LoaderOptions options, std::int64_t count);

}  // namespace millrace
