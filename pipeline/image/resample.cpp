#include "pipeline/image/resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace millrace {
namespace {

using Four = float __attribute__((vector_size(16)));
using FourInts = std::int32_t __attribute__((vector_size(16)));
using FourBytes = std::uint8_t __attribute__((vector_size(4)));

constexpr std::int64_t kFour = 4;

void add_row(const std::uint8_t* pixels, std::int64_t elements, float weight, bool first, float* sum) {
  if (first) {
#pragma omp simd
    for (std::int64_t i = 0; i < elements; ++i) {
      sum[i] = weight * static_cast<float>(pixels[i]);
    }
  } else {
#pragma omp simd
    for (std::int64_t i = 0; i < elements; ++i) {
      sum[i] += weight * static_cast<float>(pixels[i]);
    }
  }
}

/// One row: each pixel the mean of `count` weighted ones from `first[x]` on. A count known to the compiler
/// (kCount) saves half of the time.
template <int kCount>
void shrink_row(const float* row, std::int64_t channels, const std::vector<std::int32_t>& first,
                const float* weights, std::int64_t count, std::uint8_t* out) {
  for (std::size_t x = 0; x < first.size(); ++x, weights += count, out += channels) {
    const float* pixel = row + first[x] * channels;
    for (std::int64_t c = 0; c < channels; c += kFour) {  // what a vector has too much, the next overwrites
      Four sum = {0.5f, 0.5f, 0.5f, 0.5f};                // to round
      for (std::int64_t tap = 0; tap < (kCount > 0 ? kCount : count); ++tap) {
        Four values;
        std::memcpy(&values, pixel + c + tap * channels, sizeof values);
        sum += weights[tap] * values;
      }
      const auto bytes = __builtin_convertvector(__builtin_convertvector(sum, FourInts), FourBytes);
      std::memcpy(out + c, &bytes, sizeof bytes);
    }
  }
}

}  // namespace

void Resampler::Taps::plan(std::int64_t inputs, std::int64_t outputs) {
  const float scale = static_cast<float>(inputs) / static_cast<float>(outputs);
  const float reach = std::max(scale, 1.0f);
  count = std::min(static_cast<std::int64_t>(std::ceil(2 * reach)), inputs);
  first.resize(static_cast<std::size_t>(outputs));
  weights.resize(static_cast<std::size_t>(outputs * count));
  for (std::int64_t i = 0; i < outputs; ++i) {
    const float middle = (static_cast<float>(i) + 0.5f) * scale;
    const auto begin =
        std::clamp<std::int64_t>(static_cast<std::int64_t>(middle - reach + 0.5f), 0, inputs - count);
    float* weight = weights.data() + i * count;
    float sum = 0;
    for (std::int64_t tap = 0; tap < count; ++tap) {
      const float distance = std::abs(static_cast<float>(begin + tap) + 0.5f - middle);
      weight[tap] = std::max(1 - distance / reach, 0.0f);
      sum += weight[tap];
    }
    for (std::int64_t tap = 0; tap < count; ++tap) {
      weight[tap] /= sum;
    }
    first[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(begin);
  }
}

Pixels Resampler::resample(const Pixels& source, Size2 size) {
  rows_.plan(source.height, size.height);
  columns_.plan(source.width, size.width);
  const std::int64_t channels = source.channels, elements = source.width * channels,
                     stride = size.width * channels;
  // Vectors of four reach beyond the last pixel.
  row_.resize(static_cast<std::size_t>(elements + kFour));
  pixels_.resize(static_cast<std::size_t>(size.height * stride + kFour));
  for (std::int64_t y = 0; y < size.height; ++y) {
    const std::int64_t top = rows_.first[static_cast<std::size_t>(y)];
    for (std::int64_t tap = 0; tap < rows_.count; ++tap) {
      const float weight = rows_.weights[static_cast<std::size_t>(y * rows_.count + tap)];
      if (tap == 0 || weight > 0) {
        add_row(source.at(top + tap, 0), elements, weight, tap == 0, row_.data());
      }
    }
    const auto shrink = columns_.count == 2   ? shrink_row<2>
                        : columns_.count == 3 ? shrink_row<3>
                        : columns_.count == 4 ? shrink_row<4>
                                              : shrink_row<0>;
    shrink(row_.data(), channels, columns_.first, columns_.weights.data(), columns_.count,
           pixels_.data() + y * stride);
  }
  return {pixels_.data(), size.height, size.width, source.channels, stride};
}

}  // namespace millrace
