#include "pipeline/image/pixel_writer.h"

#include <cmath>
#include <gtest/gtest.h>
#include <random>

#include "base/error.h"

namespace millrace {
namespace {

constexpr float kMean[] = {0.49f, 0.48f, 0.45f}, kStd[] = {0.25f, 0.24f, 0.26f};

struct StoredImage {
  std::int64_t height, width;
  int channels;
  std::vector<std::uint8_t> bytes;  // height x width x channels
  std::uint8_t at(std::int64_t y, std::int64_t x, int c) const {
    return bytes[static_cast<std::size_t>((y * width + x) * channels + c)];
  }
};

StoredImage noise(Size2 size, int channels, unsigned seed) {
  std::mt19937 random(seed);
  StoredImage image{size.height, size.width, channels, {}};
  image.bytes.resize(static_cast<std::size_t>(size.height * size.width * channels));
  for (auto& byte : image.bytes) {
    byte = static_cast<std::uint8_t>(random());
  }
  return image;
}

/// What a decoder would hand on for `plan`.
Pixels crop_of(const StoredImage& image, const SamplePlan& plan, bool as_planar) {
  const std::uint8_t* data = image.bytes.data();
  const Pixels whole =
      as_planar
          ? Pixels{data, image.height, image.width, image.channels, image.width, image.height * image.width}
          : Pixels{data, image.height, image.width, image.channels, image.width * image.channels};
  return whole.part(plan.crop);
}

StoredImage planar(const StoredImage& image) {
  StoredImage result = image;
  auto out = result.bytes.begin();
  for (int c = 0; c < image.channels; ++c) {
    for (std::int64_t i = 0; i < image.height * image.width; ++i) {
      *out++ = image.at(0, i, c);
    }
  }
  return result;
}

/// The pixel of the window at (y, x), straight from the definition; 0 in zero padding.
std::uint8_t window_pixel(const StoredImage& image, const SamplePlan& plan, std::int64_t y, std::int64_t x,
                          int c) {
  std::int64_t row = plan.window.top + y, column = plan.window.left + x;
  const auto inside = [](std::int64_t& i, std::int64_t size, bool reflect) {
    if (reflect && i < 0) {
      i = -i;
    }
    if (reflect && i >= size) {
      i = 2 * size - 2 - i;
    }
    return i >= 0 && i < size;
  };
  const bool mirrored = plan.pad_mode == PadMode::reflect;
  if (!inside(row, plan.crop.height, mirrored) || !inside(column, plan.crop.width, mirrored)) {
    return 0;
  }
  return image.at(plan.crop.top + row, plan.crop.left + column, c);
}

bool in_hole(const SamplePlan& plan, std::int64_t y, std::int64_t x) {
  for (const Rectangle& hole : plan.holes) {
    if (y >= hole.top && y < hole.top + hole.height && x >= hole.left && x < hole.left + hole.width) {
      return true;
    }
  }
  return false;
}

/// The element at (y, x, c) in double; `bound` is what its rounding may reach.
double expected(const StoredImage& image, const SamplePlan& plan, std::int64_t y, std::int64_t x, int c,
                double& bound) {
  const double mean = plan.normalize ? kMean[c % 3] : 0, std = plan.normalize ? kStd[c % 3] : 1;
  bound = 0;
  if (in_hole(plan, y, x)) {
    return plan.normalize ? 0 : static_cast<double>(kMean[c % 3]);
  }
  const double pixel = window_pixel(image, plan, y, plan.flip ? plan.output().width - 1 - x : x, c) / 255.0;
  bound = 0x1p-23 * (pixel / std + mean / std);
  return (pixel - mean) / std;
}

std::vector<float> means(int channels) {
  std::vector<float> result;
  for (int c = 0; c < channels; ++c) {
    result.push_back(kMean[c % 3]);
  }
  return result;
}

std::vector<float> deviations(int channels) {
  std::vector<float> result;
  for (int c = 0; c < channels; ++c) {
    result.push_back(kStd[c % 3]);
  }
  return result;
}

/// Writes `image` by `plan` and compares each element with its definition.
void check(const StoredImage& image, const SamplePlan& plan, DType dtype, bool as_planar) {
  const StoredImage stored = as_planar ? planar(image) : image;
  const PixelWriter writer(image.channels, plan.output(), dtype, means(image.channels),
                           deviations(image.channels));
  std::vector<std::byte> out(writer.bytes_per_image() + 64, std::byte{0xa5});
  PixelWriter::Scratch scratch;
  writer.write(plan, crop_of(stored, plan, as_planar), out.data(), scratch);
  std::size_t i = 0;
  for (std::int64_t y = 0; y < plan.output().height; ++y) {
    for (std::int64_t x = 0; x < plan.output().width; ++x) {
      for (int c = 0; c < image.channels; ++c, ++i) {
        double bound = 0;
        const double want = expected(image, plan, y, x, c, bound);
        if (dtype == DType::f32) {
          const double got = reinterpret_cast<const float*>(out.data())[i];
          ASSERT_LE(std::abs(got - want), bound) << y << ", " << x << ", " << c;
        } else if (dtype == DType::bf16) {
          const double got = reinterpret_cast<const bfloat16*>(out.data())[i];
          ASSERT_LE(std::abs(got - want), bound + 0x1p-8 * std::abs(want)) << y << ", " << x << ", " << c;
        } else {
          const int level = static_cast<int>(std::lround((in_hole(plan, y, x) ? kMean[c % 3] : want) * 255));
          ASSERT_EQ(std::to_integer<int>(out[i]), level) << y << ", " << x << ", " << c;
        }
      }
    }
  }
  for (std::size_t j = writer.bytes_per_image(); j < out.size(); ++j) {
    ASSERT_EQ(out[j], std::byte{0xa5});
  }
}

TEST(PixelWriter, EachElementIsWhatItsDefinitionSays) {
  const unsigned seed = 20240711;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const char* lists[] = {"",
                         "normalize",
                         "random_crop:4,horizontal_flip,normalize",
                         "random_crop:3:reflect,horizontal_flip,normalize",
                         "random_crop:2:reflect,alternating_flip,normalize",
                         "center_crop:5x4,random_crop:2,horizontal_flip,cutout:3,normalize",
                         "center_crop:40,horizontal_flip,cutout:7",
                         "horizontal_flip,random_crop:2:reflect,cutout:4,cutout:2"};
  for (const char* list : lists) {
    const auto transforms = parse_transforms(list);
    for (int trial = 0; trial < 40; ++trial) {
      const Size2 size(5 + random() % 40, 5 + random() % 40);
      const int channels = 1 + static_cast<int>(random() % 4);
      const DType dtype = std::array{DType::f32, DType::bf16, DType::u8}[random() % 3];
      const StoredImage image = noise(size, channels, random());
      SamplePlan plan(size);
      SampleRandom draws(seed, 0, trial);
      for (const auto& transform : transforms) {
        transform->edit(plan, draws);
      }
      plan.normalize = plan.normalize && dtype != DType::u8;
      SCOPED_TRACE(testing::Message() << "'" << list << "', " << channels << " x " << size.height << " x "
                                      << size.width << ", " << name_of(dtype));
      check(image, plan, dtype, random() % 2 == 0);
      if (HasFatalFailure()) {
        return;
      }
    }
  }
}

/// A triangle around the middle of output `i` of `outputs`, as wide as the shrinking, at each of the inputs.
std::vector<double> triangle(std::int64_t i, std::int64_t inputs, std::int64_t outputs) {
  const double scale = static_cast<double>(inputs) / static_cast<double>(outputs),
               reach = std::max(scale, 1.0);
  std::vector<double> weights;
  double sum = 0;
  for (std::int64_t k = 0; k < inputs; ++k) {
    weights.push_back(std::max(0.0, 1 - std::abs(k + 0.5 - (i + 0.5) * scale) / reach));
    sum += weights.back();
  }
  for (double& weight : weights) {
    weight /= sum;
  }
  return weights;
}

/// One channel of a pixel of the resized crop, by the filter's definition.
double resampled(const StoredImage& image, const SamplePlan& plan, std::int64_t y, std::int64_t x, int c) {
  const auto rows = triangle(y, plan.crop.height, plan.resized.height);
  const auto columns = triangle(x, plan.crop.width, plan.resized.width);
  double sum = 0;
  for (std::size_t row = 0; row < rows.size(); ++row) {
    for (std::size_t column = 0; column < columns.size(); ++column) {
      sum += rows[row] * columns[column] *
             image.at(plan.crop.top + static_cast<std::int64_t>(row),
                      plan.crop.left + static_cast<std::int64_t>(column), c);
    }
  }
  return sum;
}

TEST(PixelWriter, ResizesTheCrop) {
  const unsigned seed = 77;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int trial = 0; trial < 60; ++trial) {
    const Size2 size(10 + random() % 60, 10 + random() % 60);
    const int channels = std::array{3, 1, 4, 5}[static_cast<std::size_t>(trial % 4)];
    const StoredImage image = noise(size, channels, random());
    const StoredImage stored = planar(image);
    SamplePlan plan(size);
    SampleRandom draws(seed, 0, trial);
    for (const auto& transform :
         parse_transforms("random_resized_crop:16x20,random_crop:2,horizontal_flip")) {
      transform->edit(plan, draws);
    }
    const PixelWriter writer(channels, plan.output(), DType::u8, means(1), deviations(1));
    std::vector<std::byte> out(writer.bytes_per_image());
    PixelWriter::Scratch scratch;
    const bool as_planar = trial % 3 == 0;
    writer.write(plan, crop_of(as_planar ? stored : image, plan, as_planar), out.data(), scratch);
    for (std::int64_t y = 0; y < 16; ++y) {
      for (std::int64_t x = 0; x < 20; ++x) {
        const std::int64_t row = y + plan.window.top, column = (plan.flip ? 19 - x : x) + plan.window.left;
        const bool padded = row < 0 || row >= 16 || column < 0 || column >= 20;
        for (int c = 0; c < channels; ++c) {
          const double want = padded ? 0 : resampled(image, plan, row, column, c);
          ASSERT_NEAR(std::to_integer<int>(out[static_cast<std::size_t>((y * 20 + x) * channels + c)]), want,
                      0.51)
              << "trial " << trial << " at " << y << ", " << x;
        }
      }
    }
  }
}

TEST(PixelWriter, RefusesWhatDoesNotFit) {
  const float two[] = {0.5f, 0.5f}, zero[] = {0}, one[] = {1};
  EXPECT_THROW(PixelWriter(3, 8, DType::f32, two, one), InputError);
  EXPECT_THROW(PixelWriter(3, 8, DType::f32, one, zero), InputError);
  EXPECT_THROW(PixelWriter(3, 8, DType::i64, one, one), InputError);
  for (const float odd : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    EXPECT_THROW(PixelWriter(3, 8, DType::f32, std::span(&odd, 1), one), InputError);
    EXPECT_THROW(PixelWriter(3, 8, DType::f32, one, std::span(&odd, 1)), InputError);
  }
  const float tiny = 1e-42f;
  EXPECT_THROW(PixelWriter(3, 8, DType::f32, one, std::span(&tiny, 1)), InputError);
}

}  // namespace
}  // namespace millrace
