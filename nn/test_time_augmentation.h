#pragma once

#include "nn/module.h"

namespace millrace::nn {

/// Test-time augmentation: the scores of images [N, C, H, W], averaged over six augmentations of each. The
/// image and its mirror image weigh 1/4 each; both, moved by one pixel to the upper left and to the lower
/// right, 1/8 each, with the border filled by reflection. f32 [N, classes]. arXiv 2404.00498.
Variable average_over_augmentations(Module& net, const Variable& images);

}  // namespace millrace::nn
