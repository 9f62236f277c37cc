#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/kernels.h"
#include "tensor/philox.h"

namespace millrace {

/// The random numbers of one sample in one epoch: Philox keyed (seed, epoch, sample id), read by draw number.
class SampleRandom {
 public:
  SampleRandom(std::uint64_t seed, std::int64_t epoch, std::int64_t sample);
  float uniform();                            ///< In [0, 1).
  std::int64_t below(std::int64_t bound);     ///< In [0, bound).

 private:
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 4> words_{};
  std::int64_t sample_;
  std::uint32_t draw_ = 0;
};

struct Rectangle {
  std::int64_t top = 0, left = 0, height = 0, width = 0;
};

/// What is to be done to one image, decided before it is decoded; one executor then writes each pixel once.
/// The source rectangle may reach beyond the image (that is padding); it is resized to the output.
struct SamplePlan {
  Size2 source = 0;   ///< The image as stored, height and width.
  Rectangle crop;     ///< Of the source.
  Size2 output = 0;   ///< Height and width written into the slab.
  PadMode pad_mode = PadMode::zero;
  bool flip = false;  ///< Left to right, after cropping and resizing.
  std::vector<Rectangle> holes;  ///< Of the output, filled with the mean (zero once normalized).
  bool normalize = false;        ///< (x / 255 - mean) / std, else x / 255. Never for u8.
};

/// Edits the plan of one sample. Stateless and shared by all threads: all randomness comes from `random`.
class Transform {
 public:
  virtual ~Transform() = default;
  virtual void edit(SamplePlan& plan, SampleRandom& random) const = 0;
  /// The output size for a source of this size, when it never depends on the sample; used to check slabs up front.
  virtual bool fixes_output_size() const { return false; }
  virtual std::string describe() const = 0;
};

/// Reads a comma-separated list: "random_crop:4" (pads by 4; "random_crop:4:reflect"), "horizontal_flip", "cutout:8",
/// "resize:32" (or 32x48), "center_crop:28", "random_resized_crop:224", "normalize".
/// @throws InputError that names the unknown word and lists the known ones.
std::vector<std::shared_ptr<const Transform>> parse_transforms(std::string_view list);

}  // namespace millrace
