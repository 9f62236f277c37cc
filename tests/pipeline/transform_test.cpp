#include "pipeline/transform.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <set>

#include "tensor/error.h"

namespace millrace {
namespace {

SamplePlan plan(std::string_view list, Size2 source, std::int64_t sample, std::uint64_t seed = 1) {
  SamplePlan result(source);
  SampleRandom random(seed, 0, sample);
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
      "resize:32x48,random_crop:4:reflect,horizontal_flip,cutout:8,normalize,center_crop:28,random_resized_"
      "crop:224,"
      "random_crop:2,resize:7";
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
  EXPECT_THAT(error_of("random_crop:4,resize:16"), HasSubstr("resize:16"));
  EXPECT_THAT(error_of("cutout:4,random_crop:4"), HasSubstr("cutout"));
  EXPECT_THAT(error_of("resize:8,random_resized_crop:8"), HasSubstr("drop the resize"));
  EXPECT_THAT(error_of("random_crop:32:reflect"), HasSubstr("larger than the padding"));
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
