#include "pipeline/image/batch_mix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "tests/pipeline/image/noise.h"
#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kSamples = 7, kClasses = 5, kHeight = 6, kWidth = 9, kChannels = 3;

/// Random pixels and labels; the last sample is padding.
Slab make_slab(DType dtype, std::uint32_t seed) {
  Slab slab(kSamples, {{"image", dtype, {kChannels, kHeight, kWidth}},
                       {"label", DType::i64, {}},
                       {"soft_label", DType::f32, {kClasses}}});
  slab.valid = kSamples - 1;
  std::mt19937 random(seed);
  visit(dtype, [&]<typename T>() {
    T* pixels = slab.field("image").data<T>();
    for (std::int64_t i = 0; i < slab.field("image").numel(); ++i) {
      pixels[i] = static_cast<T>(static_cast<float>(random() % 256));
    }
  });
  for (std::int64_t i = 0; i < slab.valid; ++i) {
    slab.field("label").data<std::int64_t>()[i] = static_cast<std::int64_t>(random() % kClasses);
  }
  return slab;
}

/// What mixing gives, in double: value of sample i at (c, y, x).
double expected_pixel(const Tensor& before, std::int64_t valid, const BatchMix::Draw& draw, std::int64_t i,
                      std::int64_t c, std::int64_t y, std::int64_t x) {
  const double own = before.at({i, c, y, x}), other = before.at({valid - 1 - i, c, y, x});
  const Rectangle& box = draw.box;
  if (!draw.cut) {
    return draw.lambda * own + (1 - draw.lambda) * other;
  }
  const bool inside = y >= box.top && y < box.top + box.height && x >= box.left && x < box.left + box.width;
  return inside ? other : own;
}

void expect_mixed(DType dtype, const BatchMix::Draw& draw, std::int64_t valid) {
  Slab slab = make_slab(dtype, 3);
  slab.valid = valid;
  const Tensor before = slab.field("image").clone(), labels = slab.field("label").clone();
  BatchMix::apply(slab, draw);
  const Tensor &after = slab.field("image"), &soft = slab.field("soft_label");
  const double tolerance = dtype == DType::u8 ? 0.501 : dtype == DType::bf16 ? 1.0 : 1e-4;
  for (std::int64_t i = 0; i < kSamples; ++i) {
    for (std::int64_t c = 0; c < kChannels; ++c) {
      for (std::int64_t y = 0; y < kHeight; ++y) {
        for (std::int64_t x = 0; x < kWidth; ++x) {
          const double expected =
              i < valid ? expected_pixel(before, valid, draw, i, c, y, x) : before.at({i, c, y, x});
          ASSERT_NEAR(after.at({i, c, y, x}), expected, tolerance) << name_of(dtype) << " sample " << i;
        }
      }
    }
    for (std::int64_t k = 0; k < kClasses; ++k) {
      double expected = 0;
      if (i < valid) {
        expected = draw.lambda * (labels.at({i}) == static_cast<double>(k)) +
                   (1 - draw.lambda) * (labels.at({valid - 1 - i}) == static_cast<double>(k));
      }
      EXPECT_NEAR(soft.at({i, k}), expected, 1e-6);
    }
  }
}

TEST(BatchMix, IsTheNaiveVersionInEveryType) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::u8}) {
    for (const std::int64_t valid : {0, 1, 2, 5, 6}) {
      expect_mixed(dtype, {.lambda = 0.3}, valid);
      expect_mixed(dtype, {.lambda = 1.0}, valid);
      expect_mixed(dtype, {.lambda = 1 - 12.0 / 54, .cut = true, .box = {1, 5, 3, 4}}, valid);
      expect_mixed(dtype, {.lambda = 1, .cut = true, .box = {2, 2, 0, 0}}, valid);
      expect_mixed(dtype, {.lambda = 0, .cut = true, .box = {0, 0, kHeight, kWidth}}, valid);
    }
  }
}

BatchMix mix_of(std::string list) { return BatchMix::take_from(list); }

/// Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1)).
TEST(BatchMix, LambdaIsBetaDistributed) {
  constexpr int kDraws = 20000;
  for (const double alpha : {0.01, 0.2, 1.0, 3.5, 100.0}) {
    const BatchMix mix = mix_of("mixup:" + std::to_string(alpha));
    double sum = 0, squares = 0;
    for (int i = 0; i < kDraws; ++i) {
      const double lambda = mix.draw(SampleRandom(1, 2, i), 8).lambda;
      ASSERT_TRUE(lambda >= 0 && lambda <= 1);
      sum += lambda;
      squares += (lambda - 0.5) * (lambda - 0.5);
    }
    const double variance = 1 / (4 * (2 * alpha + 1));
    EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(variance / kDraws)) << alpha;
    EXPECT_NEAR(squares / kDraws, variance, 0.05 * variance) << alpha;
  }
}

TEST(BatchMix, CutMixCorrectsLambdaToTheArea) {
  const BatchMix mix = mix_of("cutmix:1");
  double clipped = 0;
  for (int i = 0; i < 2000; ++i) {
    const BatchMix::Draw draw = mix.draw(SampleRandom(1, 2, i), {20, 30});
    const Rectangle& box = draw.box;
    ASSERT_TRUE(draw.cut);
    ASSERT_TRUE(box.top >= 0 && box.left >= 0 && box.height >= 0 && box.width >= 0);
    ASSERT_TRUE(box.top + box.height <= 20 && box.left + box.width <= 30);
    EXPECT_DOUBLE_EQ(draw.lambda, 1 - static_cast<double>(box.height * box.width) / 600);
    clipped += draw.lambda;
  }
  EXPECT_GT(clipped / 2000, 0.55) << "boxes are cut off at the borders, so more than half is kept";
}

TEST(BatchMix, BothNamedAreDrawnHalfEach) {
  const BatchMix both = mix_of("mixup:0.2,cutmix:1");
  int cut = 0;
  for (int i = 0; i < 2000; ++i) {
    cut += both.draw(SampleRandom(3, 0, i), 8).cut;
  }
  EXPECT_NEAR(cut, 1000, 120);
}

TEST(BatchMix, IsTakenOutOfTheList) {
  std::string list = " random_crop:4, mixup:0.2 ,normalize,cutmix:1.0";
  EXPECT_TRUE(BatchMix::take_from(list).active());
  EXPECT_EQ(list, "random_crop:4,normalize");
  EXPECT_FALSE(BatchMix::take_from(list).active());
  for (const char* wrong : {"mixup:", "mixup:0", "cutmix:-1", "mixup:nan", "cutmix:1x", "mixup:1e9"}) {
    EXPECT_THROW(mix_of(wrong), InputError) << wrong;
  }
}

std::shared_ptr<Noise> make_data(int classes = 10) {
  auto data = std::make_shared<Noise>(48, 32, 32);
  data->label_classes = 10;
  data->name_classes(classes);
  return data;
}

TEST(BatchMix, ALoaderMixesEachShardInItself) {
  const LoaderOptions options{.batch_size = 16, .order = {}, .shards = 2, .threads = 2, .seed = 1};
  LoaderOptions mixing = options;
  mixing.transforms += ",mixup:1";
  Loader plain(make_data(), options), mixed(make_data(), mixing);
  plain.epoch(1);
  Batch before;
  for (const Batch& batch : mixed.epoch(1)) {
    ASSERT_TRUE(plain.next(before));
    for (int s = 0; s < 2; ++s) {
      const Batch a = before.share(s), b = batch.share(s);
      EXPECT_TRUE(all_close(a.labels().to(DType::f32), a.targets().to(DType::f32))) << "unmixed: labels";
      ASSERT_EQ(b.targets().shape(), (Shape{8, 10}));
      EXPECT_TRUE(all_close(sum(b.targets(), {.dims = {1}}), ones({8})));
      const auto own = static_cast<std::int64_t>(a.labels().at({0})),
                 other = static_cast<std::int64_t>(a.labels().at({7}));
      const double lambda = own == other ? 1 : b.targets().at({0, own});
      if (own == other) {
        continue;
      }
      EXPECT_TRUE(
          all_close(b.images()[0], a.images()[0] * lambda + a.images()[7] * (1 - lambda), 1e-3, 1e-3));
      EXPECT_NEAR(b.targets().at({0, other}), 1 - lambda, 1e-6);
    }
  }
}

TEST(BatchMix, TrainsTheSameBitsOnAnyReplicas) {
  std::string expected;
  for (const int replicas : {1, 2}) {
    LoaderOptions options{
        .batch_size = 16, .transforms = "normalize,mixup:0.3,cutmix:1", .shards = 2, .seed = 1};
    options.threads = replicas;
    Loader loader(make_data(), options);
    Trainer trainer{make_small_net,
                    nn::SgdOptions{.learning_rate = 0.05},
                    {.replicas = replicas, .shards = 2, .seed = 5}};
    for (const Batch& batch : loader.epoch(0)) {
      trainer.step(batch, [](nn::Module& net, const Batch& b) {
        return cross_entropy(net(b.images()), b.targets(), {.reduction = Reduction::sum});
      });
    }
    const std::string hash = trainer.weights_hash();
    expected = expected.empty() ? hash : expected;
    EXPECT_EQ(hash, expected);
  }
}

TEST(BatchMix, WhatCannotBeMixedIsNamed) {
  const auto message = [](int classes) -> std::string {
    try {
      Loader loader(make_data(classes), {.batch_size = 48, .transforms = "normalize,mixup:1", .threads = 1});
      Batch batch;
      loader.epoch(0);
      loader.next(batch);
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(message(0), HasSubstr("names none"));
  EXPECT_THAT(message(4), HasSubstr("there are 4 classes"));
  EXPECT_EQ(message(10), "no error");
}

}  // namespace
}  // namespace millrace
