// Each operation beside torchvision's definition for bytes, in double.
#include "pipeline/image/pixel_operations.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <gtest/gtest.h>
#include <numbers>
#include <random>

#include "base/error.h"
#include "pipeline/image/pixel_writer.h"

namespace millrace {
namespace {

struct Raster {
  int height, width, channels;
  std::vector<std::uint8_t> bytes;
  std::uint8_t& at(int y, int x, int c) {
    return bytes[static_cast<std::size_t>((y * width + x) * channels + c)];
  }
  int get(int y, int x, int c) const {
    return bytes[static_cast<std::size_t>((y * width + x) * channels + c)];
  }
};

Raster random_raster(int height, int width, int channels, std::mt19937& random) {
  Raster image{height, width, channels, {}};
  for (int i = 0; i < height * width * channels; ++i) {
    image.bytes.push_back(static_cast<std::uint8_t>(30 + random() % (i % 7 == 0 ? 200 : 100)));
  }
  return image;
}

Raster apply(const Raster& image, const PixelOperation& operation) {
  Raster result = image;
  PixelOperations operations;
  operations.push_back(operation);
  PixelOperator().apply(operations, result.bytes.data(), {image.height, image.width}, image.channels);
  return result;
}

double clamp(double value) { return std::clamp(value, 0.0, 255.0); }

double grey(const Raster& image, int y, int x) {
  if (image.channels == 1) {
    return image.get(y, x, 0);
  }
  return std::floor(0.2989 * image.get(y, x, 0) + 0.587 * image.get(y, x, 1) + 0.114 * image.get(y, x, 2));
}

using Definition = std::function<double(const Raster&, int y, int x, int c)>;

/// Values are cut off, not rounded: one level off is where a double and a float differ.
void check(const PixelOperation& operation, const Definition& definition, double tolerance = 1.001) {
  const unsigned seed = 5;
  std::mt19937 random(seed);
  for (const auto& [height, width, channels] : {std::tuple{31, 45, 3}, {16, 16, 1}, {3, 3, 3}}) {
    const Raster image = random_raster(height, width, channels, random);
    const Raster got = apply(image, operation);
    double sum = 0;
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        for (int c = 0; c < channels; ++c) {
          const double off = got.get(y, x, c) - clamp(definition(image, y, x, c));
          ASSERT_LE(std::abs(off), tolerance) << "seed " << seed << ", " << height << " x " << width << " x "
                                              << channels << " at " << y << ", " << x << ", " << c;
          sum += off;
        }
      }
    }
    EXPECT_LE(std::abs(sum) / (height * width * channels), 0.75);
  }
}

TEST(PixelOperations, Brightness) {
  for (const float factor : {0.0f, 0.6f, 1.7f}) {
    check({PixelChange::brightness, factor, 0},
          [&](const Raster& i, int y, int x, int c) { return std::floor(clamp(factor * i.get(y, x, c))); });
  }
}

TEST(PixelOperations, Contrast) {
  for (const float factor : {0.0f, 0.6f, 1.7f}) {
    check({PixelChange::contrast, factor, 0}, [&](const Raster& i, int y, int x, int c) {
      double mean = 0;
      for (int v = 0; v < i.height; ++v) {
        for (int u = 0; u < i.width; ++u) {
          mean += grey(i, v, u) / (i.height * i.width);
        }
      }
      return std::floor(clamp(factor * i.get(y, x, c) + (1 - factor) * mean));
    });
  }
}

TEST(PixelOperations, SaturationAndGrayscale) {
  for (const float factor : {0.0f, 0.6f, 1.7f}) {
    const Definition definition = [&](const Raster& i, int y, int x, int c) {
      return std::floor(clamp(factor * i.get(y, x, c) + (1 - factor) * grey(i, y, x)));
    };
    check({PixelChange::saturation, factor, 0}, definition);
    if (factor == 0) {
      check({PixelChange::grayscale, 0, 0}, definition);
    }
  }
}

/// By way of hue, saturation and value, as in the textbook.
double turned_hue(const Raster& image, int y, int x, int c, double by) {
  if (image.channels == 1) {
    return image.get(y, x, 0);
  }
  const double r = image.get(y, x, 0), g = image.get(y, x, 1), b = image.get(y, x, 2);
  const double v = std::max({r, g, b}), range = v - std::min({r, g, b});
  double h = range == 0 ? 0 : v == r ? (g - b) / range : v == g ? 2 + (b - r) / range : 4 + (r - g) / range;
  h = h / 6 + by;
  h = 6 * (h - std::floor(h));
  const double s = v == 0 ? 0 : range / v, f = h - std::floor(h);
  const double p = v * (1 - s), q = v * (1 - s * f), t = v * (1 - s * (1 - f));
  const double table[6][3] = {{v, t, p}, {q, v, p}, {p, v, t}, {p, q, v}, {t, p, v}, {v, p, q}};
  return table[static_cast<int>(h) % 6][c];
}

TEST(PixelOperations, Hue) {
  for (const float by : {-0.5f, -0.2f, 0.0f, 0.05f, 0.4f}) {
    check({PixelChange::hue, by, 0}, [&](const Raster& i, int y, int x, int c) {
      return std::floor(turned_hue(i, y, x, c, by) + 1e-4);
    });
  }
}

TEST(PixelOperations, Blur) {
  const int size = 5;
  const float deviation = 1.3f;
  const auto definition = [&](const Raster& i, int y, int x, int c) {
    const auto reflect = [](int k, int n) { return k < 0 ? -k : k >= n ? 2 * n - 2 - k : k; };
    double sum = 0, weights = 0;
    for (int v = -2; v <= 2; ++v) {
      for (int u = -2; u <= 2; ++u) {
        const double weight = std::exp(-0.5 * (u * u + v * v) / (deviation * deviation));
        weights += weight;
        sum += weight * i.get(reflect(y + v, i.height), reflect(x + u, i.width), c);
      }
    }
    return sum / weights;
  };
  check({PixelChange::blur, deviation, size}, definition, 0.51);
}

TEST(PixelOperations, Sharpness) {
  for (const float factor : {0.1f, 1.9f}) {
    check({PixelChange::sharpness, factor, 0}, [&](const Raster& i, int y, int x, int c) {
      if (y == 0 || x == 0 || y == i.height - 1 || x == i.width - 1) {
        return static_cast<double>(i.get(y, x, c));
      }
      double sum = 4 * i.get(y, x, c);
      for (int v = -1; v <= 1; ++v) {
        for (int u = -1; u <= 1; ++u) {
          sum += i.get(y + v, x + u, c);
        }
      }
      return std::floor(clamp(factor * i.get(y, x, c) + (1 - factor) * std::round(sum / 13)));
    });
  }
}

TEST(PixelOperations, PosterizeAndSolarize) {
  check(
      {PixelChange::posterize, 5, 0},
      [](const Raster& i, int y, int x, int c) { return i.get(y, x, c) / 8 * 8; }, 0);
  check(
      {PixelChange::solarize, 100.5f, 0},
      [](const Raster& i, int y, int x, int c) {
        return i.get(y, x, c) > 100 ? 255 - i.get(y, x, c) : i.get(y, x, c);
      },
      0);
}

TEST(PixelOperations, AutoContrast) {
  check({PixelChange::auto_contrast, 0, 0}, [](const Raster& i, int y, int x, int c) {
    int least = 255, most = 0;
    for (int v = 0; v < i.height; ++v) {
      for (int u = 0; u < i.width; ++u) {
        least = std::min(least, i.get(v, u, c));
        most = std::max(most, i.get(v, u, c));
      }
    }
    return std::floor(255.0 * (i.get(y, x, c) - least) / (most - least) + 1e-4);
  });
  const Raster flat{4, 4, 1, std::vector<std::uint8_t>(16, 77)};
  EXPECT_EQ(apply(flat, {PixelChange::auto_contrast, 0, 0}).bytes, flat.bytes);
  EXPECT_EQ(apply(flat, {PixelChange::equalize, 0, 0}).bytes, flat.bytes);
}

TEST(PixelOperations, Equalize) {
  check(
      {PixelChange::equalize, 0, 0},
      [](const Raster& i, int y, int x, int c) {
        int counts[256] = {}, last = 0, below = 0;
        for (int v = 0; v < i.height; ++v) {
          for (int u = 0; u < i.width; ++u) {
            const int value = i.get(v, u, c);
            ++counts[value];
            last = std::max(last, value);
            below += value < i.get(y, x, c);
          }
        }
        const int step = (i.height * i.width - counts[last]) / 255;
        return step == 0 ? i.get(y, x, c) : std::min((below + step / 2) / step, 255);
      },
      0);
}

/// Pixels come from `place` of their middles, black from outside; where that falls on a border between two
/// pixels, either is right.
void check_warp(const PixelOperation& operation,
                const std::function<std::pair<double, double>(double x, double y, int w, int h)>& place) {
  std::mt19937 random(9);
  const Raster image = random_raster(40, 56, 3, random);
  const Raster got = apply(image, operation);
  const auto pixel = [&](double x, double y, int c) {
    const int u = static_cast<int>(std::floor(x)), v = static_cast<int>(std::floor(y));
    return u < 0 || v < 0 || u >= image.width || v >= image.height ? 0 : image.get(v, u, c);
  };
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x) {
      const auto [u, v] = place(x + 0.5, y + 0.5, image.width, image.height);
      bool found = false;
      for (const double dx : {-2e-3, 2e-3}) {
        for (const double dy : {-2e-3, 2e-3}) {
          found |=
              got.get(y, x, 0) == pixel(u + dx, v + dy, 0) && got.get(y, x, 2) == pixel(u + dx, v + dy, 2);
        }
      }
      ASSERT_TRUE(found) << "at " << y << ", " << x << " from " << v << ", " << u;
    }
  }
}

TEST(PixelOperations, Warps) {
  for (const float amount : {0.09f, -0.3f}) {
    check_warp({PixelChange::shear_x, amount, 0}, [&](double x, double y, int, int) {
      return std::pair{x + amount * y, y};
    });
    check_warp({PixelChange::shear_y, amount, 0}, [&](double x, double y, int, int) {
      return std::pair{x, y + amount * x};
    });
    check_warp({PixelChange::translate_x, 100 * amount, 0}, [&](double x, double y, int, int) {
      return std::pair{x - 100 * amount, y};
    });
    check_warp({PixelChange::translate_y, 50 * amount, 0}, [&](double x, double y, int, int) {
      return std::pair{x, y - 50 * amount};
    });
    check_warp({PixelChange::rotate, 100 * amount, 0}, [&](double x, double y, int w, int h) {
      const double angle = 100 * amount * std::numbers::pi / 180, c = std::cos(angle), s = std::sin(angle);
      x -= w / 2.0;
      y -= h / 2.0;
      return std::pair{w / 2.0 + c * x - s * y, h / 2.0 + s * x + c * y};
    });
  }
}

TEST(PixelOperations, ComeAfterTheFlipAndBeforeNormalization) {
  std::mt19937 random(2);
  const Raster image = random_raster(20, 24, 3, random);
  SamplePlan plan({20, 24});
  plan.crop = {2, 3, 16, 16};
  plan.resized = 16;
  plan.window = {-2, 0, 16, 16};
  plan.flip = true;
  const Pixels whole{image.bytes.data(), 20, 24, 3, 72};
  const float mean[] = {0.5f}, std[] = {0.25f};
  PixelWriter::Scratch scratch;
  const PixelWriter bytes(3, 16, DType::u8, mean, std), floats(3, 16, DType::f32, mean, std);
  std::vector<std::byte> plain(bytes.bytes_per_image()), changed(plain.size()),
      normalized(floats.bytes_per_image());
  bytes.write(plan, whole.part(plan.crop), plain.data(), scratch);
  plan.operations.push_back({PixelChange::translate_x, 5, 0});
  plan.operations.push_back({PixelChange::solarize, 128, 0});
  plan.holes.push_back({0, 0, 4, 4});
  bytes.write(plan, whole.part(plan.crop), changed.data(), scratch);
  plan.normalize = true;
  floats.write(plan, whole.part(plan.crop), normalized.data(), scratch);
  for (int y = 0; y < 16; ++y) {
    for (int x = 0; x < 16; ++x) {
      const auto at = static_cast<std::size_t>((y * 16 + x) * 3);
      const int from = x < 5 ? 0 : std::to_integer<int>(plain[at - 15]);
      const bool hole = y < 4 && x < 4;
      const int want = hole ? 128 : from >= 128 ? 255 - from : from;
      ASSERT_EQ(std::to_integer<int>(changed[at]), want) << y << ", " << x;
      const double level = hole ? 0 : (want / 255.0 - 0.5) / 0.25;
      ASSERT_NEAR(reinterpret_cast<const float*>(normalized.data())[at], level, 1e-5);
    }
  }
}

TEST(PixelOperations, NeedOneOrThreeChannels) {
  std::mt19937 random(2);
  EXPECT_THROW(apply(random_raster(4, 4, 4, random), {PixelChange::equalize, 0, 0}), TransformError);
}

}  // namespace
}  // namespace millrace
