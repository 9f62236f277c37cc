#include "pipeline/training/whitening.h"

#include <algorithm>
#include <opencv2/core.hpp>

#include "pipeline/image/opencv_bridge.h"
#include "pipeline/training/model_file.h"

namespace millrace {
namespace {

/// The patches of images [N, C, H, W] under a kernel of h x w, as columns: f64 [C h w, patches].
Tensor patches_of(const Tensor& images, std::int64_t h, std::int64_t w) {
  const std::int64_t rows = images.size(2) - h + 1, columns = images.size(3) - w + 1;
  std::vector<Tensor> parts;
  for (std::int64_t channel = 0; channel < images.size(1); ++channel) {
    for (std::int64_t y = 0; y < h; ++y) {
      for (std::int64_t x = 0; x < w; ++x) {
        const Tensor part = images.select(1, channel).narrow(1, y, rows).narrow(2, x, columns);
        parts.push_back(part.to(DType::f64).contiguous().view({1, part.numel()}));
      }
    }
  }
  return cat(parts);
}

}  // namespace

void whiten(nn::Conv2d& conv, const Tensor& images, double eps) {
  constexpr std::int64_t kImagesAtOnce = 64;
  const Shape& shape = conv.weight.shape();
  const std::int64_t h = shape[2], w = shape[3], values = shape[1] * h * w;
  if (shape[0] != 2 * values) {
    throw InputError("whiten: got filters {}, expected {} of them, two for each value of a patch", shape,
                     2 * values);
  }
  if (images.dim() != 4 || images.size(0) == 0 || images.size(1) != shape[1] || images.size(2) < h ||
      images.size(3) < w) {
    throw InputError("whiten: got images {}, expected [N, {}, H, W] of at least {} x {} pixels",
                     images.shape(), shape[1], h, w);
  }
  Tensor moments = zeros({values, values}, {.dtype = DType::f64});
  double patches = 0;
  for (std::int64_t first = 0; first < images.size(0); first += kImagesAtOnce) {
    const Tensor some =
        patches_of(images.narrow(0, first, std::min(kImagesAtOnce, images.size(0) - first)), h, w);
    moments.add_(matmul(some, some.t()));
    patches += static_cast<double>(some.size(1));
  }
  cv::Mat eigenvalues, eigenvectors;  // descending; a row an eigenvector
  cv::eigen(to_mat(moments.div_(patches)), eigenvalues, eigenvectors);
  Tensor filters = from_mat(eigenvectors);
  for (std::int64_t i = 0; i < values; ++i) {
    filters[i].div_(std::sqrt(std::max(eigenvalues.at<double>(static_cast<int>(i)), 0.0) + eps));
  }
  conv.weight.data().copy_(cat({filters, filters * -1}).view(shape).to(conv.weight.device()));
}

Tensor first_images(std::shared_ptr<const Dataset> dataset, LoaderOptions options, std::int64_t count) {
  options.transforms = evaluation_transforms(options.transforms);
  options.dtype = DType::f32;
  options.order = {.kind = Order::sequential};
  options.tail = Tail::pad;
  options.batch_size = std::min(count, dataset->size());
  options.shards = options.epochs = 1;
  options.first_shard = options.local_shards = 0;
  options.slabs = 1;
  options.trace = nullptr;
  Loader loader(std::move(dataset), options);
  Batch batch;
  loader.epoch(0);
  loader.next(batch);
  return batch.images().clone();
}

}  // namespace millrace
