#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pipeline/image/decode.h"
#include "pipeline/image/pixel_operations.h"
#include "pipeline/image/resample.h"
#include "pipeline/image/transform.h"
#include "pipeline/loader/slab.h"
#include "tensor/dtype.h"

namespace millrace {

/// Carries out plans: from decoded pixels to one sample's image in a slab, each element written once.
/// Immutable and shared by all threads; each brings a Scratch of its own.
class PixelWriter {
 public:
  /// Memory of one thread, kept between images.
  struct Scratch {
    std::vector<std::uint8_t>
        band;  // rows of u8, cropped and flipped, small enough for the first-level cache
    std::vector<std::uint8_t> interleaved;  // planar pixels
    Resampler resampler;
    PixelOperator operations;
  };

  /// @param output height and width of all images; `mean` and `std` are per channel, or one for all, of [0,
  /// 1].
  /// @throws InputError on another number of means or deviations, a deviation of 0, a type other than f32,
  /// bf16, u8.
  PixelWriter(int channels, Size2 output, DType dtype, std::span<const float> mean,
              std::span<const float> std);

  std::size_t bytes_per_image() const;
  /// How bytes become the numbers that it writes in other types.
  PixelScale pixel_scale(bool normalize) const;
  /// Writes H x W x C elements at `destination`. `plan.output()` must be the writer's, `crop.channels` its
  /// channels; `crop` may be smaller than the plan's (a JPEG decoded at half its size).
  void write(const SamplePlan& plan, const Pixels& crop, std::byte* destination, Scratch& scratch) const;

 private:
  /// value = scale * pixel + bias, one pair for each element of an output row; `fill` is a row of the holes'
  /// value.
  struct Row {
    std::vector<float> scale, bias;
    std::vector<std::byte> fill;
  };
  Row make_row(std::span<const float> mean, std::span<const float> std, std::span<const float> fill) const;
  template <typename T>
  void write_as(const SamplePlan& plan, const Pixels& crop, std::byte* destination, Scratch& scratch) const;
  void fill_holes(const SamplePlan& plan, std::byte* destination) const;

  int channels_;
  Size2 output_;
  DType dtype_;
  Row plain_, normalized_;
};

}  // namespace millrace
