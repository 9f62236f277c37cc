#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <utility>

#include "pipeline/image/transform_words.h"

namespace millrace {
namespace {

float between(float low, float high, SampleRandom& random) { return low + (high - low) * random.uniform(); }

class ColorTransform : public Transform {
 public:
  void edit(SamplePlan& plan, SampleRandom& random) const final {
    if (!plan.holes.empty()) {
      throw InputError("transforms: {} comes after cutout; put it first", describe());
    }
    plan.recolored = plan.recolored || most_operations() > 0;
    draw(plan, random);
  }

 private:
  virtual void draw(SamplePlan& plan, SampleRandom& random) const = 0;
};

class ColorJitter final : public ColorTransform {
 public:
  explicit ColorJitter(std::array<float, 4> ranges) : ranges_(ranges) {}
  std::string describe() const override { return fmt::format("color_jitter:{}", fmt::join(ranges_, ":")); }
  int most_operations() const override {
    return static_cast<int>(std::count_if(ranges_.begin(), ranges_.end(), [](float r) { return r > 0; }));
  }

 private:
  void draw(SamplePlan& plan, SampleRandom& random) const override {
    std::array<std::size_t, 4> order = {0, 1, 2, 3};
    for (std::size_t i = order.size() - 1; i > 0; --i) {
      std::swap(order[i], order[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i) + 1))]);
    }
    constexpr PixelChange kChanges[] = {PixelChange::brightness, PixelChange::contrast,
                                        PixelChange::saturation, PixelChange::hue};
    std::array<float, 4> amounts;
    for (std::size_t i = 0; i < amounts.size(); ++i) {
      const float range = ranges_[i];
      amounts[i] = kChanges[i] == PixelChange::hue ? between(-range, range, random)
                                                   : between(std::max(1 - range, 0.0f), 1 + range, random);
    }
    for (const std::size_t i : order) {
      if (ranges_[i] > 0) {
        plan.operations.push_back({kChanges[i], amounts[i], 0});
      }
    }
  }

  std::array<float, 4> ranges_;
};

class Grayscale final : public ColorTransform {
 public:
  explicit Grayscale(float part) : part_(part) {}
  std::string describe() const override { return fmt::format("grayscale:{}", part_); }
  int most_operations() const override { return 1; }

 private:
  void draw(SamplePlan& plan, SampleRandom& random) const override {
    if (random.uniform() < part_) {
      plan.operations.push_back({PixelChange::grayscale, 0, 0});
    }
  }

  float part_;
};

class GaussianBlur final : public ColorTransform {
 public:
  GaussianBlur(int size, float least, float most) : size_(size), least_(least), most_(most) {}
  std::string describe() const override {
    return fmt::format("gaussian_blur:{}:{}:{}", size_, least_, most_);
  }
  int most_operations() const override { return 1; }

 private:
  void draw(SamplePlan& plan, SampleRandom& random) const override {
    const Size2 output = plan.output();
    if (size_ / 2 >= std::min(output.height, output.width)) {
      throw InputError("transforms: {} reflects {} pixels at the border, more than there are in {} x {}",
                       describe(), size_ / 2, output.height, output.width);
    }
    plan.operations.push_back({PixelChange::blur, between(least_, most_, random), size_});
  }

  int size_;
  float least_, most_;
};

/// Strengths are those of 31 steps, as in torchvision.
class RandAugment final : public ColorTransform {
 public:
  RandAugment(int count, int magnitude) : count_(count), magnitude_(magnitude) {}
  std::string describe() const override { return fmt::format("rand_augment:{}:{}", count_, magnitude_); }
  int most_operations() const override { return count_; }

 private:
  static constexpr int kSteps = 30;

  struct Choice {
    PixelChange change;
    float most;  // the strength of the last step
    bool both_ways;
  };

  Choice choice(std::int64_t i, Size2 output) const {
    const auto translation = [](std::int64_t side) { return 150.0f / 331 * static_cast<float>(side); };
    const Choice choices[] = {{PixelChange::shear_x, 0.3f, true},
                              {PixelChange::shear_y, 0.3f, true},
                              {PixelChange::translate_x, translation(output.width), true},
                              {PixelChange::translate_y, translation(output.height), true},
                              {PixelChange::rotate, 30, true},
                              {PixelChange::brightness, 0.9f, true},
                              {PixelChange::saturation, 0.9f, true},
                              {PixelChange::contrast, 0.9f, true},
                              {PixelChange::sharpness, 0.9f, true},
                              {PixelChange::posterize, 4, false},
                              {PixelChange::solarize, 255, false},
                              {PixelChange::auto_contrast, 0, false},
                              {PixelChange::equalize, 0, false}};
    static_assert(std::size(choices) == kChoices - 1);
    return choices[i];
  }

  void draw(SamplePlan& plan, SampleRandom& random) const override {
    for (int i = 0; i < count_; ++i) {
      const std::int64_t drawn = random.below(kChoices);
      if (drawn == kChoices - 1) {
        continue;  // the one that changes nothing
      }
      const Choice chosen = choice(drawn, plan.output());
      float amount = chosen.most * static_cast<float>(magnitude_) / kSteps;
      if (chosen.both_ways && random.below(2) != 0) {
        amount = -amount;
      }
      plan.operations.push_back({chosen.change, scaled(chosen.change, amount), 0});
    }
  }

  static float scaled(PixelChange change, float amount) {
    switch (change) {
      case PixelChange::brightness:
      case PixelChange::saturation:
      case PixelChange::contrast:
      case PixelChange::sharpness:
        return 1 + amount;
      case PixelChange::translate_x:
      case PixelChange::translate_y:
        return std::trunc(amount);
      case PixelChange::posterize:
        return 8 - std::nearbyint(amount);
      case PixelChange::solarize:
        return 255 - amount;
      default:
        return amount;
    }
  }

  static constexpr std::int64_t kChoices = 14;
  int count_, magnitude_;
};

}  // namespace

std::shared_ptr<const Transform> parse_color_transform(std::string_view word) {
  std::string_view rest = word;
  const std::string_view name = take(rest, ':');
  if (name == "color_jitter") {
    std::array<float, 4> ranges;
    for (std::size_t i = 0; i < 3; ++i) {
      ranges[i] = parse_decimal(take(rest, ':'), word, 0, 100);
    }
    ranges[3] = parse_decimal(rest, word, 0, 0.5f);
    return std::make_shared<ColorJitter>(ranges);
  }
  if (name == "grayscale") {
    return std::make_shared<Grayscale>(parse_decimal(rest, word, 0, 1));
  }
  if (name == "gaussian_blur") {
    const auto size = static_cast<int>(parse_whole(take(rest, ':'), word, 1, 255));
    if (size % 2 == 0) {
      throw InputError("transforms: '{}' blurs over {} pixels, expected an odd number", word, size);
    }
    const float least = parse_decimal(take(rest, ':'), word, 0.01f, 1000);
    return std::make_shared<GaussianBlur>(size, least, parse_decimal(rest, word, least, 1000));
  }
  if (name == "rand_augment") {
    const auto count = static_cast<int>(parse_whole(take(rest, ':'), word, 1, PixelOperations::kCapacity));
    return std::make_shared<RandAugment>(count, static_cast<int>(parse_whole(rest, word, 0, 30)));
  }
  return nullptr;
}

}  // namespace millrace
