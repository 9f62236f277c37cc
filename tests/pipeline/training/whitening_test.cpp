#include "pipeline/training/whitening.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

using testing::HasSubstr;

/// Images whose channels and neighbouring pixels are correlated.
Tensor correlated_images(std::int64_t count) {
  Generator generator(11);
  Tensor images = randn({count, 3, 9, 7}, generator);
  images = images + images.select(1, 0).unsqueeze(1) * 2;
  return (images + cat({images.narrow(3, 1, 6), images.narrow(3, 0, 1)}, 3))
      .contiguous(MemoryFormat::channels_last);
}

/// The mean of products of two filters' answers, over all places.
std::vector<std::vector<double>> products(const Tensor& answers) {
  const std::int64_t filters = answers.size(1), rows = answers.size(2), columns = answers.size(3);
  std::vector<std::vector<double>> sums(static_cast<std::size_t>(filters),
                                        std::vector<double>(static_cast<std::size_t>(filters)));
  for (std::int64_t n = 0; n < answers.size(0); ++n) {
    for (std::int64_t place = 0; place < rows * columns; ++place) {
      for (std::int64_t i = 0; i < filters; ++i) {
        for (std::int64_t j = 0; j < filters; ++j) {
          sums[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)] +=
              answers.at({n, i, place / columns, place % columns}) *
              answers.at({n, j, place / columns, place % columns});
        }
      }
    }
  }
  for (auto& row : sums) {
    for (double& sum : row) {
      sum /= static_cast<double>(answers.size(0) * rows * columns);
    }
  }
  return sums;
}

TEST(Whitening, MakesAnswersUncorrelatedAndOfOneSize) {
  const Tensor images = correlated_images(100);
  nn::Conv2d conv(3, 24, {.kernel = 2, .bias = false});
  whiten(conv, images, 0);
  const auto found = products(conv(images).data());
  for (std::size_t i = 0; i < 24; ++i) {
    for (std::size_t j = 0; j < 24; ++j) {
      const double expected = i == j ? 1 : i % 12 == j % 12 ? -1 : 0;
      EXPECT_NEAR(found[i][j], expected, 1e-3) << i << " " << j;
    }
  }
}

TEST(Whitening, EpsilonShrinksSmallDirections) {
  const Tensor images = correlated_images(100);
  nn::Conv2d plain(3, 24, {.kernel = 2}), shrunk(3, 24, {.kernel = 2});
  whiten(plain, images, 0);
  whiten(shrunk, images, 0.25);
  double last_size = 0;
  for (std::int64_t i = 0; i < 12; ++i) {
    const double size = sum(plain.weight.data()[i] * plain.weight.data()[i]).item();  // 1 / eigenvalue
    EXPECT_GE(size, last_size) << "largest eigenvalue first";
    last_size = size;
    EXPECT_NEAR(sum(shrunk.weight.data()[i] * shrunk.weight.data()[i]).item(), 1 / (1 / size + 0.25), 1e-5);
  }
}

TEST(Whitening, MistakesAreNamed) {
  const auto error = [](std::int64_t filters, const Tensor& images) -> std::string {
    nn::Conv2d conv(3, filters, {.kernel = 2});
    try {
      whiten(conv, images);
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(error(12, zeros({1, 3, 8, 8})), HasSubstr("expected 24"));
  EXPECT_THAT(error(24, zeros({1, 1, 8, 8})), HasSubstr("[1, 1, 8, 8]"));
  EXPECT_THAT(error(24, zeros({0, 3, 8, 8})), HasSubstr("[0, 3, 8, 8]"));
  EXPECT_THAT(error(24, zeros({1, 3, 8, 1})), HasSubstr("[1, 3, 8, 1]"));
}

TEST(Whitening, ReachesAllReplicasFromRankZerosModule) {
  const std::shared_ptr<const Dataset> data = open_dataset("synthetic:100");
  const LoaderOptions loading{.batch_size = 20, .shards = 2, .seed = 3};
  std::vector<std::string> hashes;
  for (const int replicas : {1, 2}) {
    Trainer trainer{[] { return nn::make_model("airbench94"); },
                    nn::SgdOptions{.learning_rate = 0.01},
                    {.replicas = replicas, .shards = 2}};
    auto& conv = dynamic_cast<nn::Conv2d&>(*trainer.module().children().front().second);
    whiten(conv, first_images(data, loading, 50));
    Loader loader(data, loading);
    for (const Batch& batch : loader.epoch(0)) {
      trainer.step(batch, sum_of_losses);
    }
    hashes.push_back(trainer.weights_hash());
  }
  EXPECT_EQ(hashes[0], hashes[1]);
}

TEST(FirstImages, AreThoseInOrderWithoutRandomTransforms) {
  const std::shared_ptr<const Dataset> data = open_dataset("synthetic:100");
  const LoaderOptions random{
      .batch_size = 20, .transforms = "random_crop:4,horizontal_flip,normalize", .shards = 4};
  const Tensor images = first_images(data, random, 30);
  Loader loader(data, {.batch_size = 30, .order = {.kind = Order::sequential}});
  Batch batch;
  loader.epoch(0);
  loader.next(batch);
  EXPECT_EQ(max(abs(images - batch.images())).item(), 0);
  EXPECT_EQ(first_images(data, random, 1000).size(0), 100);
}

}  // namespace
}  // namespace millrace
