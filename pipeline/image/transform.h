#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "tensor/kernels/options.h"

namespace millrace {

/// The transforms are wrong, not the image, which is no bad sample then.
class TransformError : public InputError {
 public:
  using InputError::InputError;
};

/// The random numbers of one sample in one epoch: Philox keyed (seed, epoch, sample id), read by draw number.
class SampleRandom {
 public:
  SampleRandom(std::uint64_t seed, std::int64_t epoch, std::int64_t sample);
  /// The epoch that these are of.
  std::int64_t epoch() const { return epoch_; }
  /// The numbers that this sample gets in every epoch.
  SampleRandom every_epoch() const { return {seed_, -1, sample_}; }
  float uniform();                          ///< In [0, 1).
  std::int64_t below(std::int64_t bound) {  ///< In [0, bound), bound < 2^32.
    return static_cast<std::int64_t>(next() * static_cast<std::uint64_t>(bound) >> 32);
  }

 private:
  std::uint64_t next();

  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 4> words_{};
  std::uint64_t seed_;
  std::int64_t epoch_, sample_;
  std::uint32_t draw_ = 0;
};

struct Rectangle {
  std::int64_t top = 0, left = 0, height = 0, width = 0;
  Size2 size() const { return {height, width}; }
  bool operator==(const Rectangle&) const = default;
};

/// A few values held in place, so that planning a sample allocates nothing.
template <typename T, int kMost>
class Few {
 public:
  static constexpr int kCapacity = kMost;
  /// @throws InputError when there are kCapacity already.
  void push_back(const T& value) {
    if (count_ == kCapacity) {
      throw InputError("transforms: more than {} holes or operations on pixel values for one image",
                       kCapacity);
    }
    values_[static_cast<std::size_t>(count_++)] = value;
  }
  bool empty() const { return count_ == 0; }
  T* begin() { return values_.data(); }
  T* end() { return values_.data() + count_; }
  const T* begin() const { return values_.data(); }
  const T* end() const { return values_.data() + count_; }

 private:
  std::array<T, static_cast<std::size_t>(kMost)> values_;
  int count_ = 0;
};

/// What can be done to the values of pixels, each as torchvision defines it for bytes.
enum class PixelChange : std::uint8_t {
  brightness,  ///< A factor: 0 makes all black, 1 changes nothing.
  contrast,    ///< A factor: 0 makes all the mean grey.
  saturation,  ///< A factor: 0 makes the image grey.
  hue,         ///< A part of the colour circle, -0.5 to 0.5.
  grayscale,
  blur,  ///< The deviation of a Gaussian over `size` x `size` pixels.
  shear_x,
  shear_y,  ///< Pixels a row or column, from the upper left corner.
  translate_x,
  translate_y,  ///< Pixels to the right or down.
  rotate,       ///< Degrees against the clock, around the middle.
  sharpness,    ///< A factor: 0 smooths.
  posterize,    ///< Bits kept, 1 to 8.
  solarize,     ///< Values from here up are inverted.
  auto_contrast,
  equalize
};

struct PixelOperation {
  PixelChange change;
  float amount;
  int size;
};

using Holes = Few<Rectangle, 4>;
using PixelOperations = Few<PixelOperation, 12>;

/// What is to be done to one image, decided before it is decoded; one executor then writes each pixel once.
/// The crop is resized, a window of that is taken, and it is flipped, its values are changed and normalized,
/// and it is punched with holes.
struct SamplePlan {
  explicit SamplePlan(Size2 image)
      : source(image),
        crop{0, 0, image.height, image.width},
        resized(image),
        window{0, 0, image.height, image.width} {}

  Size2 source;                      ///< The image as stored, height and width.
  Rectangle crop;                    ///< Of the source, and within it.
  Size2 resized;                     ///< What the crop is resized to; its own size where it is not.
  Rectangle window;                  ///< Of the resized crop; where it reaches beyond, it is padding.
  PadMode pad_mode = PadMode::zero;  ///< Zero is black, before normalization.
  Rectangle reach = {};              ///< Added to the window, all that other draws might have taken.
  bool recolored = false;            ///< At random, be it by chance to what it was.
  bool flip = false;                 ///< Left to right, after the window.
  PixelOperations operations = {};   ///< On the output's bytes, in this order.
  Holes holes;             ///< Of the output, filled with the mean (zero once normalized); may reach beyond.
  bool normalize = false;  ///< (x / 255 - mean) / std, else x / 255. Never for u8.

  Size2 output() const { return window.size(); }  ///< Height and width written into the slab.
  bool resizes() const { return resized != crop.size(); }
  /// Whether the window is still the whole resized crop.
  bool is_whole() const {
    return reach == Rectangle() && window == Rectangle{0, 0, resized.height, resized.width};
  }
};

/// Edits the plan of one sample. Stateless and shared by all threads: all randomness comes from `random`.
class Transform {
 public:
  virtual ~Transform() = default;
  virtual void edit(SamplePlan& plan, SampleRandom& random) const = 0;
  /// How many operations on pixel values it may add to a plan, so that a list of too many is refused as such.
  virtual int most_operations() const { return 0; }
  virtual std::string describe() const = 0;
};

/// Reads a comma-separated list, applied in order:
/// - "random_crop:4" pads by 4 and takes a random window of the size before ("random_crop:4:reflect");
/// - "horizontal_flip" flips every other image;
/// - "alternating_flip" flips a random half in even epochs and the other half in odd ones (arXiv 2404.00498);
/// - "cutout:8" fills a square of 8 x 8 around a random pixel with the mean (DeVries and Taylor, 2017);
/// - "resize:32" or "resize:32x48" (height x width);
/// - "center_crop:28" takes the middle, padded where the image is smaller;
/// - "random_resized_crop:224" resizes a random 8 to 100 % of the area, of aspect 3:4 to 4:3 (as PyTorch
/// does);
/// - "color_jitter:B:C:S:H" changes brightness, contrast, saturation and hue in a random order, by factors of
/// 1 - B to 1 + B and so on, and by up to H of the colour circle;
/// - "grayscale:P" takes the colour out of a part P of the images;
/// - "gaussian_blur:K:MIN:MAX" blurs over K x K pixels (K odd) with a deviation between MIN and MAX;
/// - "rand_augment:N:M" does N random things of strength M, 0 to 30 (Cubuk et al., 2019; torchvision's list);
/// - "normalize" subtracts the mean and divides by the deviation, once all else is done.
/// @throws InputError that names the unknown word and lists the known ones, or when one image could get more
/// operations than a plan holds.
std::vector<std::shared_ptr<const Transform>> parse_transforms(std::string_view list);

}  // namespace millrace
