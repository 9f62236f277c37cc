#include "nn/test_time_augmentation.h"

#include <gtest/gtest.h>

#include "nn/layers/containers.h"
#include "nn/layers/convolution.h"
#include "nn/layers/shape.h"

namespace millrace {
namespace {

/// Scores that depend on each pixel's place and, unlike a mean of pixels, on each image as a whole.
struct Places : nn::Module {
  explicit Places(const Tensor& weights) : weights_(weights) {}
  Variable forward(const Variable& images) override {
    const Variable scores = matmul(reshape(images, {images.size(0), weights_.size(0)}), weights_);
    return scores * scores;
  }
  Tensor weights_;
};

std::int64_t reflected(std::int64_t place, std::int64_t size) {
  return place < 0 ? -place : place >= size ? 2 * size - 2 - place : place;
}

/// The score of one image moved right and down by `by`, then mirrored.
double naive_score(const Tensor& image, const Tensor& weights, std::int64_t score, std::int64_t by,
                   bool mirror) {
  double sum = 0;
  const std::int64_t rows = image.size(1), columns = image.size(2);
  for (std::int64_t c = 0; c < image.size(0); ++c) {
    for (std::int64_t y = 0; y < rows; ++y) {
      for (std::int64_t x = 0; x < columns; ++x) {
        const std::int64_t seen = mirror ? columns - 1 - x : x;
        sum += image.at({c, reflected(y - by, rows), reflected(seen - by, columns)}) *
               weights.at({(c * rows + y) * columns + x, score});
      }
    }
  }
  return sum * sum;
}

TEST(TestTimeAugmentation, AverageIsOfSix) {
  Generator generator(3);
  const Tensor weights = randn({3 * 5 * 7, 4}, generator);
  const Tensor images = randn({2, 3, 5, 7}, generator).contiguous(MemoryFormat::channels_last);
  Places net(weights);
  const Tensor found = nn::average_over_augmentations(net, images).data();
  ASSERT_EQ(found.shape(), (Shape{2, 4}));
  for (std::int64_t n = 0; n < 2; ++n) {
    for (std::int64_t score = 0; score < 4; ++score) {
      double expected = 0;
      for (const std::int64_t by : {-1, 0, 1}) {
        for (const bool mirror : {false, true}) {
          expected += naive_score(images[n], weights, score, by, mirror) * (by == 0 ? 0.25 : 0.125);
        }
      }
      EXPECT_NEAR(found.at({n, score}), expected, 1e-4 * std::abs(expected)) << n << " " << score;
    }
  }
}

TEST(TestTimeAugmentation, AverageOfBf16ScoresIsF32) {
  nn::Sequential net;
  net.emplace<nn::Conv2d>(3, 4, nn::Conv2dOptions{.kernel = 5});
  net.emplace<nn::Flatten>();
  Generator generator(3);
  const Tensor images = randn({2, 3, 5, 5}, generator).contiguous(MemoryFormat::channels_last);
  const Tensor exact = nn::average_over_augmentations(net, images).data();
  const Tensor found = nn::average_over_augmentations(net, images.to(DType::bf16)).data();
  EXPECT_EQ(found.dtype(), DType::f32);
  EXPECT_LT(max(abs(found - exact)).item(), 0.05);
}

}  // namespace
}  // namespace millrace
