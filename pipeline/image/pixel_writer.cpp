#include "pipeline/image/pixel_writer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fmt/format.h>

namespace millrace {
namespace {

constexpr std::int64_t kBandBytes = 8192;

using Bytes16 = std::uint8_t __attribute__((vector_size(16)));

Bytes16 load16(const std::uint8_t* p) {
  Bytes16 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

/// Five pixels of three bytes a step. Each step also writes the byte before its own, which the next one
/// overwrites.
void reverse_rgb(const std::uint8_t* source, std::int64_t pixels, std::uint8_t* out) {
  constexpr Bytes16 kOrder = {0, 12, 13, 14, 9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2};
  std::int64_t x = 0;
  for (; x + 6 <= pixels; x += 5) {  // six, because 16 bytes are read and written
    const Bytes16 reversed = __builtin_shuffle(load16(source + 3 * x), kOrder);
    std::memcpy(out + 3 * (pixels - x - 5) - 1, &reversed, sizeof reversed);
  }
  for (; x < pixels; ++x) {
    for (int c = 0; c < 3; ++c) {
      out[3 * (pixels - 1 - x) + c] = source[3 * x + c];
    }
  }
}

void reverse_pixels(const std::uint8_t* source, std::int64_t pixels, int channels, std::uint8_t* out) {
  if (channels == 3) {
    return reverse_rgb(source, pixels, out);
  }
  for (std::int64_t x = 0; x < pixels; ++x) {
    for (int c = 0; c < channels; ++c) {
      out[(pixels - 1 - x) * channels + c] = source[x * channels + c];
    }
  }
}

/// Columns [left, left + columns) of row y of a planar image, as pixels.
void interleave(const Pixels& image, std::int64_t y, std::int64_t left, std::int64_t columns,
                std::uint8_t* out) {
  const std::uint8_t* first = image.at(y, left);
  const std::int64_t plane = image.plane;
  if (image.channels == 3) {
    for (std::int64_t x = 0; x < columns; ++x) {
      out[3 * x] = first[x];
      out[3 * x + 1] = first[plane + x];
      out[3 * x + 2] = first[2 * plane + x];
    }
    return;
  }
  for (std::int64_t x = 0; x < columns; ++x) {
    for (int c = 0; c < image.channels; ++c) {
      out[x * image.channels + c] = first[c * plane + x];
    }
  }
}

/// The place that padding by reflection reads, without repeating the border.
std::int64_t reflect(std::int64_t i, std::int64_t size) {
  while (size > 1 && (i < 0 || i >= size)) {
    i = i < 0 ? -i : 2 * (size - 1) - i;
  }
  return size > 1 ? i : 0;
}

/// Writes rows of a plan's window as u8: pads, crops, flips, interleaves.
struct Gather {
  const SamplePlan& plan;
  const Pixels& source;  // the resized crop
  std::vector<std::uint8_t>& interleaved;

  /// Whether rows of the window lie in the source as they are wanted.
  bool in_place() const {
    const Rectangle& window = plan.window;
    return !plan.flip && !source.planar() && window.top >= 0 && window.left >= 0 &&
           window.top + window.height <= plan.resized.height &&
           window.left + window.width <= plan.resized.width;
  }
  const std::uint8_t* place(std::int64_t y) const { return source.at(plan.window.top + y, plan.window.left); }

  void row(std::int64_t y, std::uint8_t* out) const {
    const Rectangle& window = plan.window;
    const std::int64_t columns = window.width;
    const int channels = source.channels;
    const bool mirrored = plan.pad_mode == PadMode::reflect;
    std::int64_t row = window.top + y;
    if (mirrored) {
      row = reflect(row, plan.resized.height);
    }
    // Output columns [begin, end), before the flip, lie in the image.
    const std::int64_t begin = std::clamp<std::int64_t>(-window.left, 0, columns);
    std::int64_t end = std::clamp<std::int64_t>(plan.resized.width - window.left, begin, columns);
    if (row < 0 || row >= plan.resized.height) {
      end = begin;
    }
    if (!mirrored && end - begin < columns) {
      std::memset(out, 0, static_cast<std::size_t>(columns * channels));
    }
    if (begin < end) {
      copy(row, window.left + begin, end - begin, out + (plan.flip ? columns - end : begin) * channels);
    }
    if (mirrored) {
      for (std::int64_t x = 0; x < begin; ++x) {
        mirror(row, x, out);
      }
      for (std::int64_t x = end; x < columns; ++x) {
        mirror(row, x, out);
      }
    }
  }

 private:
  void mirror(std::int64_t row, std::int64_t x, std::uint8_t* out) const {
    copy(row, reflect(plan.window.left + x, plan.resized.width), 1,
         out + (plan.flip ? plan.window.width - 1 - x : x) * source.channels);
  }

  void copy(std::int64_t y, std::int64_t x, std::int64_t columns, std::uint8_t* out) const {
    const int channels = source.channels;
    if (source.planar() && !plan.flip) {
      return interleave(source, y, x, columns, out);
    }
    const std::uint8_t* pixels = source.at(y, x);
    if (source.planar()) {
      interleaved.resize(static_cast<std::size_t>(columns * channels));
      interleave(source, y, x, columns, interleaved.data());
      pixels = interleaved.data();
    }
    if (plan.flip) {
      return reverse_pixels(pixels, columns, channels, out);
    }
    std::memcpy(out, pixels, static_cast<std::size_t>(columns * channels));
  }
};

void convert(const std::uint8_t* pixels, std::int64_t count, const float* scale, const float* bias,
             float* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<float>(pixels[i]) * scale[i] + bias[i];
  }
}

/// As bfloat16's constructor rounds, less its care for NaN, which keeps the compiler from vectorizing.
void convert(const std::uint8_t* pixels, std::int64_t count, const float* scale, const float* bias,
             bfloat16* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const auto word = std::bit_cast<std::uint32_t>(static_cast<float>(pixels[i]) * scale[i] + bias[i]);
    out[i].bits = static_cast<std::uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
  }
}

/// The image with its channels together.
Pixels interleaved(const Pixels& image, std::vector<std::uint8_t>& memory) {
  if (!image.planar()) {
    return image;
  }
  const std::int64_t stride = image.width * image.channels;
  memory.resize(static_cast<std::size_t>(image.height * stride));
  for (std::int64_t y = 0; y < image.height; ++y) {
    interleave(image, y, 0, image.width, memory.data() + y * stride);
  }
  return {memory.data(), image.height, image.width, image.channels, stride};
}

/// "125" becomes "0.49" where it can only be meant on the scale of bytes.
std::string on_scale(std::span<const float> values) {
  const bool are_bytes = std::ranges::any_of(values, [](float value) { return value > 1; });
  std::vector<std::string> scaled;
  for (const float value : values) {
    scaled.push_back(are_bytes ? fmt::format("{:.3g}", value / 255) : fmt::format("{}", value));
  }
  return fmt::format("{}", fmt::join(scaled, ","));
}

/// A network learns nothing from pixels that are normalized on another scale, and nothing says so.
void check_scale(std::span<const float> mean, std::span<const float> std) {
  const auto outside = [](float value) { return value < 0 || value > 1; };
  const auto no_bytes = [](float value) { return value < 0 || value > 255; };
  if (std::ranges::none_of(mean, outside) && std::ranges::none_of(std, outside)) {
    return;
  }
  const bool can_be_bytes = std::ranges::none_of(mean, no_bytes) && std::ranges::none_of(std, no_bytes);
  throw InputError(
      "normalize: got the mean {} and the standard deviation {}, expected numbers in [0, 1], as pixels are{}",
      fmt::join(mean, ","), fmt::join(std, ","),
      can_be_bytes ? fmt::format("; if they are for bytes, divide them by 255: the mean {} and the standard "
                                 "deviation {}",
                                 on_scale(mean), on_scale(std))
                   : "");
}

}  // namespace

PixelWriter::PixelWriter(int channels, Size2 output, DType dtype, std::span<const float> mean,
                         std::span<const float> std)
    : channels_(channels), output_(output), dtype_(dtype) {
  if (dtype != DType::f32 && dtype != DType::bf16 && dtype != DType::u8) {
    throw InputError("loader: images cannot be {}; expected f32, bf16 or u8", dtype);
  }
  const auto spread = [&](std::span<const float> values, const char* name) {
    if (values.size() != 1 && values.size() != static_cast<std::size_t>(channels)) {
      throw InputError("normalize: got {} values of {} for images of {} channels; give one, or one a channel",
                       values.size(), name, channels);
    }
    std::vector<float> all(static_cast<std::size_t>(channels), values[0]);
    if (values.size() > 1) {
      all.assign(values.begin(), values.end());
    }
    return all;
  };
  const std::vector<float> means = spread(mean, "mean"), deviations = spread(std, "std");
  for (std::size_t c = 0; c < means.size(); ++c) {  // a finite scale and offset: no pixel becomes NaN
    if (!(deviations[c] > 0) || !std::isnormal(deviations[c]) || !std::isfinite(means[c] / deviations[c])) {
      throw InputError(
          "normalize: got the mean {} and the standard deviation {}; expected finite numbers, the second "
          "above 0",
          means[c], deviations[c]);
    }
  }
  check_scale(mean, std);
  const std::vector<float> zeros(means.size(), 0), ones(means.size(), 1);
  plain_ = make_row(zeros, ones, means);
  normalized_ = make_row(means, deviations, zeros);
}

PixelWriter::Row PixelWriter::make_row(std::span<const float> mean, std::span<const float> std,
                                       std::span<const float> fill) const {
  Row row;
  const auto channels = static_cast<std::size_t>(channels_);
  const auto elements = static_cast<std::size_t>(output_.width) * channels;
  row.fill.resize(elements * size_of(dtype_));
  for (std::size_t i = 0; i < elements; ++i) {
    const std::size_t c = i % channels;
    row.scale.push_back(static_cast<float>(1 / (255.0 * static_cast<double>(std[c]))));
    row.bias.push_back(static_cast<float>(-static_cast<double>(mean[c]) / static_cast<double>(std[c])));
    std::byte* place = row.fill.data() + i * size_of(dtype_);
    const auto bf16 = bfloat16(fill[c]);
    const auto u8 = static_cast<std::uint8_t>(std::lround(std::clamp(fill[c], 0.0f, 1.0f) * 255));
    switch (dtype_) {
      case DType::u8:
        std::memcpy(place, &u8, sizeof u8);
        break;
      case DType::bf16:
        std::memcpy(place, &bf16, sizeof bf16);
        break;
      default:
        std::memcpy(place, &fill[c], sizeof fill[c]);
        break;
    }
  }
  return row;
}

std::size_t PixelWriter::bytes_per_image() const {
  return static_cast<std::size_t>(output_.height * output_.width * channels_) * size_of(dtype_);
}

PixelScale PixelWriter::pixel_scale(bool normalize) const {
  const Row& row = normalize ? normalized_ : plain_;
  PixelScale result{empty({channels_}), empty({channels_})};
  std::copy_n(row.scale.begin(), channels_, result.scale.data<float>());
  std::copy_n(row.bias.begin(), channels_, result.bias.data<float>());
  return result;
}

template <typename T>
void PixelWriter::write_as(const SamplePlan& plan, const Pixels& crop, std::byte* destination,
                           Scratch& scratch) const {
  const bool resizes = plan.resized != Size2(crop.height, crop.width);
  const Pixels pixels =
      resizes ? scratch.resampler.resample(interleaved(crop, scratch.interleaved), plan.resized) : crop;
  const Gather gather{plan, pixels, scratch.interleaved};
  const std::int64_t elements = output_.width * channels_;
  auto* out = reinterpret_cast<T*>(destination);
  if constexpr (std::is_same_v<T, std::uint8_t>) {
    for (std::int64_t y = 0; y < output_.height; ++y) {
      gather.row(y, out + y * elements);
    }
    scratch.operations.apply(plan.operations, out, output_, channels_);
  } else {
    const Row& row = plan.normalize ? normalized_ : plain_;
    if (plan.operations.empty() && gather.in_place()) {
      for (std::int64_t y = 0; y < output_.height; ++y) {
        convert(gather.place(y), elements, row.scale.data(), row.bias.data(), out + y * elements);
      }
      return;
    }
    // Bands of rows, so that a row is read some time after it was written: straight after, the loads would
    // stall. Operations need the image whole.
    const std::int64_t band = plan.operations.empty()
                                  ? std::clamp<std::int64_t>(kBandBytes / elements, 1, output_.height)
                                  : output_.height;
    scratch.band.resize(static_cast<std::size_t>(band * elements));
    for (std::int64_t begin = 0; begin < output_.height; begin += band) {
      const std::int64_t end = std::min(begin + band, output_.height);
      std::uint8_t* gathered = scratch.band.data();
      for (std::int64_t y = begin; y < end; ++y) {
        gather.row(y, gathered + (y - begin) * elements);
      }
      scratch.operations.apply(plan.operations, gathered, output_, channels_);
      for (std::int64_t y = begin; y < end; ++y) {
        convert(gathered + (y - begin) * elements, elements, row.scale.data(), row.bias.data(),
                out + y * elements);
      }
    }
  }
}

void PixelWriter::fill_holes(const SamplePlan& plan, std::byte* destination) const {
  const Row& row = plan.normalize && dtype_ != DType::u8 ? normalized_ : plain_;
  const auto pixel = static_cast<std::int64_t>(size_of(dtype_)) * channels_;
  for (const Rectangle& hole : plan.holes) {
    const std::int64_t left = std::clamp<std::int64_t>(hole.left, 0, output_.width);
    const std::int64_t right = std::clamp(hole.left + hole.width, left, output_.width);
    const std::int64_t bottom = std::min(hole.top + hole.height, output_.height);
    for (std::int64_t y = std::max<std::int64_t>(hole.top, 0); y < bottom; ++y) {
      std::memcpy(destination + (y * output_.width + left) * pixel, row.fill.data(),
                  static_cast<std::size_t>((right - left) * pixel));
    }
  }
}

void PixelWriter::write(const SamplePlan& plan, const Pixels& crop, std::byte* destination,
                        Scratch& scratch) const {
  switch (dtype_) {
    case DType::u8:
      write_as<std::uint8_t>(plan, crop, destination, scratch);
      break;
    case DType::bf16:
      write_as<bfloat16>(plan, crop, destination, scratch);
      break;
    default:
      write_as<float>(plan, crop, destination, scratch);
      break;
  }
  fill_holes(plan, destination);
}

}  // namespace millrace
