#include "pipeline/image/transform.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <set>

#include "base/error.h"
#include "pipeline/training/model_file.h"

namespace millrace {
namespace {

SamplePlan plan(std::string_view list, Size2 source, std::int64_t sample, std::uint64_t seed = 1,
                std::int64_t epoch = 0) {
  SamplePlan result(source);
  SampleRandom random(seed, epoch, sample);
  for (const auto& transform : parse_transforms(list)) {
    transform->edit(result, random);
  }
  return result;
}

std::string error_of(std::string_view list) {
  try {
    plan(list, 32, 0);
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

TEST(SampleRandom, DependsOnSeedEpochAndSampleAlone) {
  std::set<float> seen;
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
      for (std::int64_t sample = 0; sample < 3; ++sample) {
        SampleRandom a(seed, epoch, sample), b(seed, epoch, sample);
        for (int draw = 0; draw < 6; ++draw) {
          const float value = a.uniform();
          EXPECT_EQ(value, b.uniform());
          EXPECT_GE(value, 0);
          EXPECT_LT(value, 1);
          EXPECT_TRUE(seen.insert(value).second) << "a number came twice";
        }
      }
    }
  }
}

TEST(SampleRandom, BelowIsUniform) {
  std::vector<int> count(9);
  for (std::int64_t sample = 0; sample < 9000; ++sample) {
    ++count[static_cast<std::size_t>(SampleRandom(3, 0, sample).below(9))];
  }
  for (const int n : count) {
    EXPECT_NEAR(n, 1000, 150);
  }
}

TEST(Transforms, ReadTheirDescriptionsBack) {
  const std::string list =
      "resize:32x48,random_crop:4:reflect,horizontal_flip,alternating_flip,cutout:8,normalize,center_crop:28,"
      "random_resized_"
      "crop:224,"
      "random_crop:2,resize:7,color_jitter:0.4:0.4:0.2:0.1,grayscale:0.2,gaussian_blur:23:0.1:2,rand_augment:"
      "2:9";
  std::string described;
  for (const auto& transform : parse_transforms(list)) {
    (described += ',') += transform->describe();
  }
  EXPECT_EQ(described.substr(1), list);
  EXPECT_TRUE(parse_transforms("").empty());
  EXPECT_EQ(parse_transforms(" normalize , horizontal_flip ").size(), 2u);
}

TEST(Transforms, MistakesAreNamed) {
  using testing::HasSubstr;
  EXPECT_THAT(error_of("random_crap:4"),
              testing::AllOf(HasSubstr("random_crap"), HasSubstr("random_resized_crop")));
  EXPECT_THAT(error_of("random_crop"), HasSubstr("whole number"));
  EXPECT_THAT(error_of("random_crop:4:wrap"), HasSubstr("wrap"));
  EXPECT_THAT(error_of("resize:0"), HasSubstr("resize:0"));
  EXPECT_THAT(error_of("resize:32y48"), HasSubstr("32y48"));
  EXPECT_THAT(error_of("normalize:1"), HasSubstr("unknown"));
  EXPECT_THAT(error_of("mixup"), HasSubstr("mixup:ALPHA"));
  EXPECT_THAT(error_of("random_crop:4,resize:16"), HasSubstr("resize:16"));
  EXPECT_THAT(error_of("cutout:4,random_crop:4"), HasSubstr("cutout"));
  EXPECT_THAT(error_of("resize:8,random_resized_crop:8"), HasSubstr("drop the resize"));
  EXPECT_THAT(error_of("random_crop:32:reflect"), HasSubstr("larger than the padding"));
}

TEST(Transforms, EvaluationLeavesOutWhatIsRandom) {
  EXPECT_EQ(evaluation_transforms("resize:40x50, center_crop:32 , grayscale:1, normalize"),
            "resize:40x50,center_crop:32,grayscale:1,normalize");
  EXPECT_EQ(evaluation_transforms("grayscale:1.0,grayscale:0.9"), "grayscale:1.0");
  EXPECT_EQ(
      evaluation_transforms(
          "random_resized_crop:32, horizontal_flip,alternating_flip,color_jitter:1:1:1:0.1,grayscale:0.5, "
          "gaussian_blur:3:1:2,rand_augment:2:9,cutout:4, random_crop:4,mixup:1,cutmix:1,normalize"),
      "resize:32,normalize");
}

TEST(Transforms, MistakesInColoursAreNamed) {
  using testing::HasSubstr;
  EXPECT_THAT(error_of("color_jitter:0.4:0.4"), HasSubstr("needs a number"));
  EXPECT_THAT(error_of("color_jitter:0.4:0.4:0.4:0.6"), HasSubstr("from 0 to 0.5"));
  EXPECT_THAT(error_of("color_jitter:nan:0:0:0"), HasSubstr("nan"));
  EXPECT_THAT(error_of("grayscale:2"), HasSubstr("from 0 to 1"));
  EXPECT_THAT(error_of("gaussian_blur:4:1:2"), HasSubstr("odd"));
  EXPECT_THAT(error_of("gaussian_blur:5:2:1"), HasSubstr("from 2"));
  EXPECT_THAT(error_of("gaussian_blur:65:1:2"), HasSubstr("more than there are"));
  EXPECT_THAT(error_of("rand_augment:2:31"), HasSubstr("from 0 to 30"));
  EXPECT_THAT(error_of("color_jitter:1:1:1:0.1,horizontal_flip"), HasSubstr("put it first"));
  EXPECT_THAT(error_of("color_jitter:1:1:1:0.1,alternating_flip"), HasSubstr("put it first"));
  EXPECT_THAT(error_of("gaussian_blur:3:1:2,random_crop:4"), HasSubstr("put it first"));
  EXPECT_THAT(error_of("gaussian_blur:3:1:2,center_crop:4"), HasSubstr("put it first"));
  EXPECT_THAT(error_of("cutout:4,color_jitter:1:1:1:0.1"), HasSubstr("put it first"));
}

TEST(Transforms, ListsThatAreRefusedForSomeSamplesAreRefusedForAll) {
  for (const std::string list :
       {"random_crop:4,resize:16", "random_crop:4,random_crop:4",
        "random_crop:1:reflect,random_resized_crop:16", "grayscale:0.01,horizontal_flip",
        "grayscale:0.01,center_crop:16", "gaussian_blur:3:1:2,random_crop:4",
        "random_crop:4,center_crop:25,resize:16", "random_crop:4,center_crop:31,center_crop:24,resize:16"}) {
    for (int sample = 0; sample < 500; ++sample) {
      EXPECT_THROW(plan(list, 32, sample), InputError) << list << " of sample " << sample;
    }
  }
  EXPECT_EQ(plan("random_crop:4,center_crop:16,resize:8", 32, 0).output(), Size2(8)) << "a moved crop";
  for (int sample = 0; sample < 500; ++sample) {
    EXPECT_EQ(plan("random_crop:4,center_crop:24,resize:16", 32, sample).output(), Size2(16)) << "just fits";
  }
  EXPECT_EQ(plan("random_crop:0,resize:16", 32, 0).output(), Size2(16));

  const auto refusal = [](std::string_view list) {
    try {
      parse_transforms(list);
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  for (const char* more : {"color_jitter:0.1:0:0.1:0", "grayscale:0.1,grayscale:1",
                           "gaussian_blur:3:1:2,grayscale:0.1", "rand_augment:2:9"}) {
    EXPECT_EQ(refusal(fmt::format("rand_augment:10:9,{}", more)), "no error");
    EXPECT_THAT(refusal(fmt::format("rand_augment:11:9,{}", more)),
                testing::AllOf(testing::HasSubstr("13 operations"), testing::HasSubstr("at most 12")));
  }
}

TEST(Transforms, ColorJitterDrawsFactorsInItsRangesInEveryOrder) {
  std::set<std::vector<PixelChange>> orders;
  float least = 1, most = 1;
  for (int sample = 0; sample < 1000; ++sample) {
    const SamplePlan p = plan("color_jitter:0.4:1.5:0.2:0.1", 32, sample);
    std::vector<PixelChange> order;
    for (const PixelOperation& operation : p.operations) {
      order.push_back(operation.change);
      const float range = operation.change == PixelChange::brightness ? 0.4f
                          : operation.change == PixelChange::contrast ? 1.5f
                          : operation.change == PixelChange::hue      ? 0.1f
                                                                      : 0.2f;
      const float middle = operation.change == PixelChange::hue ? 0 : 1;
      EXPECT_GE(operation.amount, std::max(middle - range, middle - 1));
      EXPECT_LE(operation.amount, middle + range);
      if (operation.change == PixelChange::brightness) {
        least = std::min(least, operation.amount);
        most = std::max(most, operation.amount);
      }
    }
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 24u);
  EXPECT_LT(least, 0.61);
  EXPECT_GT(most, 1.39);
  EXPECT_TRUE(plan("color_jitter:0:0:0:0", 32, 0).operations.empty());
}

TEST(Transforms, RandAugmentDrawsEachOfItsThings) {
  std::map<PixelChange, std::set<float>> amounts;
  int nothing = 0;
  for (int sample = 0; sample < 2000; ++sample) {
    const SamplePlan p = plan("rand_augment:1:9", {100, 331}, sample);
    nothing += p.operations.empty();
    for (const PixelOperation& operation : p.operations) {
      amounts[operation.change].insert(operation.amount);
    }
  }
  EXPECT_NEAR(nothing, 2000 / 14, 50);
  EXPECT_EQ(amounts.size(), 13u);
  EXPECT_EQ(amounts[PixelChange::rotate], (std::set<float>{-9, 9}));
  EXPECT_EQ(amounts[PixelChange::translate_x], (std::set<float>{-45, 45}));
  EXPECT_EQ(amounts[PixelChange::translate_y], (std::set<float>{-13, 13}));
  EXPECT_EQ(amounts[PixelChange::posterize], (std::set<float>{7}));
  EXPECT_EQ(amounts[PixelChange::solarize], (std::set<float>{178.5f}));
  EXPECT_NEAR(*amounts[PixelChange::brightness].begin(), 0.73, 1e-6);
}

TEST(Transforms, GrayscaleTakesItsPart) {
  int grey = 0;
  for (int sample = 0; sample < 2000; ++sample) {
    grey += !plan("grayscale:0.2", 8, sample).operations.empty();
  }
  EXPECT_NEAR(grey, 400, 80);
}

TEST(Transforms, RandomCropReachesEveryOffset) {
  std::set<std::int64_t> tops, lefts;
  for (int sample = 0; sample < 400; ++sample) {
    const SamplePlan p = plan("random_crop:4", {20, 30}, sample);
    EXPECT_EQ(p.output(), Size2(20, 30));
    tops.insert(p.window.top);
    lefts.insert(p.window.left);
  }
  EXPECT_EQ(tops.size(), 9u);
  EXPECT_EQ(lefts.size(), 9u);
  EXPECT_EQ(*tops.begin(), -4);
  EXPECT_EQ(*lefts.rbegin(), 4);
}

TEST(Transforms, AlternatingFlipTurnsHalfAndThenTheOthers) {
  int flips = 0, differs = 0;
  for (std::int64_t sample = 0; sample < 1000; ++sample) {
    const auto flipped = [&](std::int64_t epoch, std::string_view list = "alternating_flip") {
      return plan(list, 8, sample, 1, epoch).flip;
    };
    flips += flipped(0);
    EXPECT_NE(flipped(0), flipped(1));
    EXPECT_EQ(flipped(0), flipped(2));
    EXPECT_EQ(flipped(1), flipped(9));
    EXPECT_EQ(flipped(0), flipped(0, "random_crop:2:reflect,alternating_flip"))
        << "draws before it say nothing";
    differs += flipped(0) != plan("alternating_flip", 8, sample, 2).flip;
  }
  EXPECT_NEAR(flips, 500, 60);
  EXPECT_NEAR(differs, 500, 60) << "another seed, another half";
}

TEST(Transforms, HorizontalFlipTurnsHalf) {
  int flips = 0;
  for (int sample = 0; sample < 2000; ++sample) {
    flips += plan("horizontal_flip", 8, sample).flip;
  }
  EXPECT_NEAR(flips, 1000, 120);
}

TEST(Transforms, FlipTakesHolesAlong) {
  for (int sample = 0; sample < 50; ++sample) {
    const Rectangle before = *plan("cutout:4", {8, 16}, sample).holes.begin();
    const SamplePlan after = plan("cutout:4,horizontal_flip", {8, 16}, sample);
    EXPECT_EQ(after.holes.begin()->left, after.flip ? 16 - before.left - 4 : before.left);
    EXPECT_EQ(after.holes.begin()->top, before.top);
  }
}

TEST(Transforms, CenterCropFoldsIntoTheSource) {
  const SamplePlan p = plan("center_crop:20,resize:10,center_crop:4", {30, 40}, 0);
  EXPECT_EQ(p.crop, (Rectangle{5, 10, 20, 20}));
  EXPECT_EQ(p.resized, Size2(10));
  EXPECT_EQ(p.window, (Rectangle{3, 3, 4, 4}));
  const SamplePlan padded = plan("center_crop:40", {30, 40}, 0);
  EXPECT_EQ(padded.window, (Rectangle{-5, 0, 40, 40}));
}

TEST(Transforms, RandomResizedCropKeepsAreaAndAspect) {
  double least = 1, most = 0;
  for (int sample = 0; sample < 1000; ++sample) {
    const SamplePlan p = plan("random_resized_crop:24", {300, 400}, sample);
    EXPECT_EQ(p.output(), Size2(24));
    EXPECT_GE(p.crop.top, 0);
    EXPECT_GE(p.crop.left, 0);
    EXPECT_LE(p.crop.top + p.crop.height, 300);
    EXPECT_LE(p.crop.left + p.crop.width, 400);
    const double area = static_cast<double>(p.crop.height * p.crop.width) / (300.0 * 400.0);
    const double ratio = static_cast<double>(p.crop.width) / static_cast<double>(p.crop.height);
    EXPECT_GT(ratio, 0.74);
    EXPECT_LT(ratio, 1.35);
    least = std::min(least, area);
    most = std::max(most, area);
  }
  EXPECT_GT(least, 0.075);
  EXPECT_LT(least, 0.12);
  EXPECT_GT(most, 0.9);
  // A strip that no permitted aspect fits: the largest middle.
  const SamplePlan strip = plan("random_resized_crop:24", {10, 1000}, 0);
  EXPECT_EQ(strip.crop.width <= 14, true);
}

TEST(Holes, AreFew) {
  Holes holes;
  for (int i = 0; i < Holes::kCapacity; ++i) {
    holes.push_back({});
  }
  EXPECT_THROW(holes.push_back({}), InputError);
}

}  // namespace
}  // namespace millrace
