#include "pipeline/image/transform.h"

#include <cmath>

#include "base/philox.h"
#include "pipeline/image/transform_words.h"

namespace millrace {

SampleRandom::SampleRandom(std::uint64_t seed, std::int64_t epoch, std::int64_t sample)
    : seed_(seed), epoch_(epoch), sample_(sample) {
  const std::uint64_t key = mix(seed, static_cast<std::uint64_t>(epoch));
  key_ = {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)};
}

std::uint64_t SampleRandom::next() {
  const std::uint32_t word = draw_ % 4;
  if (word == 0) {
    const auto sample = static_cast<std::uint64_t>(sample_);
    words_ = philox(
        {static_cast<std::uint32_t>(sample), static_cast<std::uint32_t>(sample >> 32), draw_ / 4, 0}, key_);
  }
  ++draw_;
  return words_[word];
}

float SampleRandom::uniform() { return to_unit_float(static_cast<std::uint32_t>(next())); }

namespace {

/// A window of the crop, where nothing is resized yet, is a smaller crop; not where other draws reach beyond.
void fold_window(SamplePlan& plan) {
  const Rectangle &window = plan.window, &reach = plan.reach;
  const auto inside = [](std::int64_t begin, std::int64_t size, std::int64_t all) {
    return begin >= 0 && begin + size <= all;
  };
  if (plan.resizes() || !inside(window.top + reach.top, window.height + reach.height, plan.resized.height) ||
      !inside(window.left + reach.left, window.width + reach.width, plan.resized.width)) {
    return;
  }
  plan.crop = {plan.crop.top + window.top, plan.crop.left + window.left, window.height, window.width};
  plan.resized = window.size();
  plan.window = {0, 0, window.height, window.width};
  plan.reach = {};
}

void require_whole(const SamplePlan& plan, const std::string& name) {
  if (!plan.is_whole() || !plan.holes.empty() || plan.recolored) {
    throw InputError(
        "transforms: {} comes after a crop of a resized or padded image, or after cutout, or after a change "
        "of "
        "colours; put it first",
        name);
  }
}

std::string in_words(Size2 size) {
  return size.height == size.width ? fmt::format("{}", size.height)
                                   : fmt::format("{}x{}", size.height, size.width);
}

class RandomCrop final : public Transform {
 public:
  RandomCrop(std::int64_t padding, PadMode mode) : padding_(padding), mode_(mode) {}
  void edit(SamplePlan& plan, SampleRandom& random) const override {
    require_whole(plan, describe());
    if (mode_ == PadMode::reflect && padding_ >= std::min(plan.resized.height, plan.resized.width)) {
      throw InputError("{}: reflecting needs an image larger than the padding, got {} x {}", describe(),
                       plan.resized.height, plan.resized.width);
    }
    plan.window.top = random.below(2 * padding_ + 1) - padding_;
    plan.window.left = random.below(2 * padding_ + 1) - padding_;
    plan.reach = {-padding_ - plan.window.top, -padding_ - plan.window.left, 2 * padding_, 2 * padding_};
    plan.pad_mode = mode_;
  }
  std::string describe() const override {
    return fmt::format("random_crop:{}{}", padding_, mode_ == PadMode::reflect ? ":reflect" : "");
  }

 private:
  std::int64_t padding_;
  PadMode mode_;
};

void flip_if(bool wanted, SamplePlan& plan, const std::string& name) {
  if (plan.recolored) {
    throw InputError("transforms: {} comes after a change of colours; put it first", name);
  }
  if (!wanted) {
    return;
  }
  plan.flip = !plan.flip;
  for (Rectangle& hole : plan.holes) {
    hole.left = plan.window.width - hole.left - hole.width;
  }
}

class HorizontalFlip final : public Transform {
 public:
  void edit(SamplePlan& plan, SampleRandom& random) const override {
    flip_if(random.below(2) == 1, plan, describe());
  }
  std::string describe() const override { return "horizontal_flip"; }
};

class AlternatingFlip final : public Transform {
 public:
  void edit(SamplePlan& plan, SampleRandom& random) const override {
    const bool in_even_epochs = random.every_epoch().below(2) == 1;
    flip_if(in_even_epochs == (random.epoch() % 2 == 0), plan, describe());
  }
  std::string describe() const override { return "alternating_flip"; }
};

class Cutout final : public Transform {
 public:
  explicit Cutout(std::int64_t size) : size_(size) {}
  void edit(SamplePlan& plan, SampleRandom& random) const override {
    const std::int64_t row = random.below(plan.window.height), column = random.below(plan.window.width);
    plan.holes.push_back({row - size_ / 2, column - size_ / 2, size_, size_});
  }
  std::string describe() const override { return fmt::format("cutout:{}", size_); }

 private:
  std::int64_t size_;
};

class Resize final : public Transform {
 public:
  explicit Resize(Size2 size) : size_(size) {}
  void edit(SamplePlan& plan, SampleRandom&) const override {
    require_whole(plan, describe());
    plan.resized = size_;
    plan.window = {0, 0, size_.height, size_.width};
  }
  std::string describe() const override { return "resize:" + in_words(size_); }

 private:
  Size2 size_;
};

class CenterCrop final : public Transform {
 public:
  explicit CenterCrop(Size2 size) : size_(size) {}
  void edit(SamplePlan& plan, SampleRandom&) const override {
    if (!plan.holes.empty() || plan.recolored) {
      throw InputError("transforms: {} comes after cutout or a change of colours; put it first", describe());
    }
    Rectangle& window = plan.window;
    window = {window.top + (window.height - size_.height) / 2, window.left + (window.width - size_.width) / 2,
              size_.height, size_.width};
    fold_window(plan);
  }
  std::string describe() const override { return "center_crop:" + in_words(size_); }

 private:
  Size2 size_;
};

class RandomResizedCrop final : public Transform {
 public:
  explicit RandomResizedCrop(Size2 size) : size_(size) {}
  void edit(SamplePlan& plan, SampleRandom& random) const override {
    require_whole(plan, describe());
    if (plan.resizes()) {
      throw InputError("transforms: {} comes after a resize; drop the resize", describe());
    }
    const Rectangle part = choose(plan.crop.height, plan.crop.width, random);
    plan.crop = {plan.crop.top + part.top, plan.crop.left + part.left, part.height, part.width};
    plan.resized = size_;
    plan.window = {0, 0, size_.height, size_.width};
  }
  std::string describe() const override { return "random_resized_crop:" + in_words(size_); }

 private:
  static constexpr double kMinScale = 0.08, kMaxScale = 1, kMinRatio = 3.0 / 4, kMaxRatio = 4.0 / 3;

  /// Ten tries at an area and an aspect that fit, then the largest middle of a permitted aspect.
  static Rectangle choose(std::int64_t height, std::int64_t width, SampleRandom& random) {
    for (int attempt = 0; attempt < 10; ++attempt) {
      const double part = kMinScale + (kMaxScale - kMinScale) * static_cast<double>(random.uniform());
      const double area = static_cast<double>(height * width) * part;
      const double log_min = std::log(kMinRatio), log_max = std::log(kMaxRatio);
      const double ratio = std::exp(log_min + (log_max - log_min) * static_cast<double>(random.uniform()));
      const auto w = std::llround(std::sqrt(area * ratio)), h = std::llround(std::sqrt(area / ratio));
      if (w > 0 && w <= width && h > 0 && h <= height) {
        return {random.below(height - h + 1), random.below(width - w + 1), h, w};
      }
    }
    const double ratio = static_cast<double>(width) / static_cast<double>(height);
    std::int64_t w = width, h = height;
    if (ratio < kMinRatio) {
      h = std::llround(static_cast<double>(width) / kMinRatio);
    }
    if (ratio > kMaxRatio) {
      w = std::llround(static_cast<double>(height) * kMaxRatio);
    }
    return {(height - h) / 2, (width - w) / 2, h, w};
  }

  Size2 size_;
};

class Normalize final : public Transform {
 public:
  void edit(SamplePlan& plan, SampleRandom&) const override { plan.normalize = true; }
  std::string describe() const override { return "normalize"; }
};

constexpr std::string_view kKnown =
    "random_crop:P[:reflect], horizontal_flip, alternating_flip, cutout:S, resize:S or resize:HxW, "
    "center_crop:S, "
    "random_resized_crop:S, color_jitter:B:C:S:H, grayscale:P, gaussian_blur:K:MIN:MAX, rand_augment:N:M, "
    "mixup:ALPHA, cutmix:ALPHA, normalize";

Size2 parse_size(std::string_view text, std::string_view word) {
  const bool is_square = text.find('x') == std::string_view::npos;
  const std::int64_t rows = parse_whole(take(text, 'x'), word, 1);
  return is_square ? Size2(rows) : Size2(rows, parse_whole(text, word, 1));
}

std::shared_ptr<const Transform> parse_transform(std::string_view word) {
  std::string_view rest = word;
  const std::string_view name = take(rest, ':');
  if (name == "random_crop") {
    const std::int64_t padding = parse_whole(take(rest, ':'), word, 0);
    if (!rest.empty() && rest != "reflect") {
      throw InputError("transforms: '{}' pads with '{}'; expected random_crop:P or random_crop:P:reflect",
                       word, rest);
    }
    return std::make_shared<RandomCrop>(padding, rest.empty() ? PadMode::zero : PadMode::reflect);
  }
  if (name == "cutout") {
    return std::make_shared<Cutout>(parse_whole(rest, word, 1));
  }
  if (name == "resize") {
    return std::make_shared<Resize>(parse_size(rest, word));
  }
  if (name == "center_crop") {
    return std::make_shared<CenterCrop>(parse_size(rest, word));
  }
  if (name == "random_resized_crop") {
    return std::make_shared<RandomResizedCrop>(parse_size(rest, word));
  }
  if (word == "horizontal_flip") {
    return std::make_shared<HorizontalFlip>();
  }
  if (word == "alternating_flip") {
    return std::make_shared<AlternatingFlip>();
  }
  if (word == "normalize") {
    return std::make_shared<Normalize>();
  }
  if (auto transform = parse_color_transform(word)) {
    return transform;
  }
  if (name == "mixup" || name == "cutmix") {
    throw InputError("transforms: '{}' is no transform of single images; expected {}:ALPHA in --transform",
                     word, name);
  }
  throw InputError("transforms: '{}' is unknown; the known ones are: {}", word, kKnown);
}

}  // namespace

std::vector<std::shared_ptr<const Transform>> parse_transforms(std::string_view list) {
  std::vector<std::shared_ptr<const Transform>> transforms;
  int operations = 0;
  list = trim(list);
  while (!list.empty()) {
    transforms.push_back(parse_transform(take(list, ',')));
    operations += transforms.back()->most_operations();
  }
  // Else a sample that draws them all would be the first to tell.
  if (operations > PixelOperations::kCapacity) {
    throw InputError(
        "transforms: the list may do {} operations to the values of one image, expected at most {}",
        operations, PixelOperations::kCapacity);
  }
  return transforms;
}

}  // namespace millrace
