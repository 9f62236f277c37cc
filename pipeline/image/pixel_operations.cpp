#include "pipeline/image/pixel_operations.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

namespace millrace {
namespace {

/// Towards zero, as torchvision converts.
std::uint8_t to_byte(float value) { return static_cast<std::uint8_t>(std::clamp(value, 0.0f, 255.0f)); }

float blend(float image, float other, float factor) { return factor * image + (1 - factor) * other; }

std::uint8_t luminance(const std::uint8_t* pixel) {
  return static_cast<std::uint8_t>(0.2989f * pixel[0] + 0.587f * pixel[1] + 0.114f * pixel[2]);
}

/// Replaces each value by a function of it (and of its channel).
template <typename Function>
void look_up(cv::Mat& image, Function function) {
  cv::Mat table(1, 256, CV_8UC(image.channels()));
  std::uint8_t* entry = table.data;
  for (int value = 0; value < 256; ++value) {
    for (int c = 0; c < image.channels(); ++c) {
      *entry++ = function(value, c);
    }
  }
  cv::LUT(image, table, image);
}

double mean_luminance(const cv::Mat& image) {
  const std::int64_t pixels = static_cast<std::int64_t>(image.total());
  const std::uint8_t* pixel = image.data;
  std::int64_t sum = 0;
  if (image.channels() == 1) {
    sum = static_cast<std::int64_t>(cv::sum(image)[0]);
  } else {
    for (std::int64_t i = 0; i < pixels; ++i) {
      sum += luminance(pixel + 3 * i);
    }
  }
  return static_cast<double>(sum) / static_cast<double>(pixels);
}

/// A factor of 0 is torchvision's greyscale.
void saturate(cv::Mat& image, float factor) {
  const std::int64_t pixels = static_cast<std::int64_t>(image.total());
  std::uint8_t* pixel = image.data;
#pragma omp simd
  for (std::int64_t i = 0; i < pixels; ++i) {
    const float grey = luminance(pixel + 3 * i);
    for (int c = 0; c < 3; ++c) {
      pixel[3 * i + c] = to_byte(blend(pixel[3 * i + c], grey, factor));
    }
  }
}

/// Each channel is a trapezoid of the hue (red's begins at 5 sixths of the circle, and so on): turning the
/// hue is reading it elsewhere.
void turn_hue(cv::Mat& image, float by) {
  cv::Mat planes[3];  // vectors of channels lying together would be slow
  cv::split(image, planes);
  std::uint8_t *reds = planes[0].data, *greens = planes[1].data, *blues = planes[2].data;
  const auto pixels = static_cast<std::int64_t>(image.total());
#pragma omp simd
  for (std::int64_t i = 0; i < pixels; ++i) {
    const float r = reds[i], g = greens[i], b = blues[i];
    const float most = std::max(r, std::max(g, b)), range = most - std::min(r, std::min(g, b));
    const float over = 1 / std::max(range, 1.0f);
    const float sixths = most == r ? (g - b) * over : most == g ? 2 + (b - r) * over : 4 + (r - g) * over;
    const auto channel = [&](float start) {
      float k = sixths + 6 * by + start + 12;  // positive
      k -= 6 * static_cast<float>(static_cast<int>(k * (1.0f / 6)));
      return to_byte(most - range * std::clamp(std::min(k, 4 - k), 0.0f, 1.0f));
    };
    reds[i] = channel(5);
    greens[i] = channel(3);
    blues[i] = channel(1);
  }
  cv::merge(planes, 3, image);
}

/// Reads the pixel at `matrix` * (x + 0.5, y + 0.5), black outside.
void warp(const cv::Mat& from, const std::array<double, 6>& m, cv::Mat& image) {
  const double shifted[] = {m[0], m[1], m[2] + 0.5 * (m[0] + m[1]) - 0.5,
                            m[3], m[4], m[5] + 0.5 * (m[3] + m[4]) - 0.5};
  const cv::Mat matrix(2, 3, CV_64F, const_cast<double*>(shifted));  // only read
  cv::warpAffine(from, image, matrix, image.size(), cv::INTER_NEAREST | cv::WARP_INVERSE_MAP,
                 cv::BORDER_CONSTANT);
}

void rotate(const cv::Mat& from, double degrees, cv::Mat& image) {
  const double angle = degrees * std::numbers::pi / 180, c = std::cos(angle), s = std::sin(angle);
  const double x = from.cols / 2.0, y = from.rows / 2.0;
  warp(from, {c, -s, x - c * x + s * y, s, c, y - s * x - c * y}, image);
}

/// Away from (or, below 1, towards) the mean with the neighbours; the border stays as it is.
void sharpen(const cv::Mat& from, float factor, cv::Mat& image) {
  if (from.rows < 3 || from.cols < 3) {
    return;
  }
  constexpr float kSide = 1.0f / 13, kMiddle = 5.0f / 13;
  const cv::Mat kernel =
      (cv::Mat_<float>(3, 3) << kSide, kSide, kSide, kSide, kMiddle, kSide, kSide, kSide, kSide);
  cv::filter2D(from, image, CV_8U, kernel);
  const std::int64_t columns = from.cols * from.channels(), border = from.channels();
  for (int y = 0; y < from.rows; ++y) {
    const std::uint8_t* sharp = from.ptr(y);
    std::uint8_t* out = image.ptr(y);
    const bool inner = y > 0 && y + 1 < from.rows;
    for (std::int64_t i = 0; i < columns; ++i) {
      out[i] =
          inner && i >= border && i < columns - border ? to_byte(blend(sharp[i], out[i], factor)) : sharp[i];
    }
  }
}

std::array<int, 256> histogram(const cv::Mat& image, int channel) {
  std::array<int, 256> counts{};
  for (std::size_t i = 0; i < image.total(); ++i) {
    ++counts[image.data[i * static_cast<std::size_t>(image.channels()) + static_cast<std::size_t>(channel)]];
  }
  return counts;
}

/// For each channel a table made from its histogram.
template <typename MakeTable>
void look_up_by_histogram(cv::Mat& image, MakeTable make_table) {
  std::array<std::array<std::uint8_t, 256>, 3> tables;
  for (int c = 0; c < image.channels(); ++c) {
    tables[static_cast<std::size_t>(c)] = make_table(histogram(image, c));
  }
  look_up(image, [&](int value, int c) {
    return tables[static_cast<std::size_t>(c)][static_cast<std::size_t>(value)];
  });
}

std::array<std::uint8_t, 256> stretching(const std::array<int, 256>& counts) {
  const auto is_there = [](int count) { return count > 0; };
  const auto least = std::find_if(counts.begin(), counts.end(), is_there) - counts.begin();
  const auto most = counts.rend() - std::find_if(counts.rbegin(), counts.rend(), is_there) - 1;
  std::array<std::uint8_t, 256> table;
  for (std::size_t value = 0; value < table.size(); ++value) {
    const float scale = 255.0f / static_cast<float>(most - least);
    table[value] = most == least ? static_cast<std::uint8_t>(value)
                                 : to_byte((static_cast<float>(value) - static_cast<float>(least)) * scale);
  }
  return table;
}

std::array<std::uint8_t, 256> equalizing(const std::array<int, 256>& counts) {
  int total = 0, last = 0;
  for (const int count : counts) {
    total += count;
    last = count > 0 ? count : last;
  }
  const int step = (total - last) / 255;
  std::array<std::uint8_t, 256> table;
  int sum = step / 2;
  for (std::size_t value = 0; value < table.size(); ++value) {
    table[value] =
        static_cast<std::uint8_t>(step == 0 ? value : static_cast<std::size_t>(std::min(sum / step, 255)));
    sum += counts[value];
  }
  return table;
}

void change_values(const PixelOperation& operation, cv::Mat& image) {
  const float amount = operation.amount;
  const bool colored = image.channels() == 3;
  switch (operation.change) {
    case PixelChange::brightness:
      return look_up(image, [&](int value, int) { return to_byte(amount * static_cast<float>(value)); });
    case PixelChange::contrast: {
      const auto mean = static_cast<float>(mean_luminance(image));
      return look_up(image,
                     [&](int value, int) { return to_byte(blend(static_cast<float>(value), mean, amount)); });
    }
    case PixelChange::posterize: {
      const int mask = -(1 << (8 - static_cast<int>(amount)));
      return look_up(image, [&](int value, int) { return static_cast<std::uint8_t>(value & mask); });
    }
    case PixelChange::solarize:
      return look_up(image, [&](int value, int) {
        return static_cast<std::uint8_t>(static_cast<float>(value) >= amount ? 255 - value : value);
      });
    case PixelChange::auto_contrast:
      return look_up_by_histogram(image, stretching);
    case PixelChange::equalize:
      return look_up_by_histogram(image, equalizing);
    case PixelChange::saturation:
      return colored ? saturate(image, amount) : void();
    case PixelChange::grayscale:
      return colored ? saturate(image, 0) : void();
    default:
      return colored ? turn_hue(image, amount) : void();
  }
}

bool reads_neighbours(PixelChange change) {
  switch (change) {
    case PixelChange::blur:
    case PixelChange::shear_x:
    case PixelChange::shear_y:
    case PixelChange::translate_x:
    case PixelChange::translate_y:
    case PixelChange::rotate:
    case PixelChange::sharpness:
      return true;
    default:
      return false;
  }
}

void change_places(const PixelOperation& operation, const cv::Mat& from, cv::Mat& image) {
  const double amount = operation.amount;
  switch (operation.change) {
    case PixelChange::blur: {
      const cv::Mat kernel = cv::getGaussianKernel(operation.size, amount, CV_32F);
      cv::Mat blurred;  // in floats: OpenCV's arithmetic of bytes rounds the kernel
      cv::sepFilter2D(from, blurred, CV_32F, kernel, kernel, {-1, -1}, 0, cv::BORDER_REFLECT_101);
      return blurred.convertTo(image, CV_8U);
    }
    case PixelChange::shear_x:
      return warp(from, {1, amount, 0, 0, 1, 0}, image);
    case PixelChange::shear_y:
      return warp(from, {1, 0, 0, amount, 1, 0}, image);
    case PixelChange::translate_x:
      return warp(from, {1, 0, -amount, 0, 1, 0}, image);
    case PixelChange::translate_y:
      return warp(from, {1, 0, 0, 0, 1, -amount}, image);
    case PixelChange::rotate:
      return rotate(from, amount, image);
    default:
      return sharpen(from, operation.amount, image);
  }
}

}  // namespace

void PixelOperator::apply(const PixelOperations& operations, std::uint8_t* pixels, Size2 size, int channels) {
  if (operations.empty()) {
    return;
  }
  if (channels != 1 && channels != 3) {
    throw TransformError("transforms: colours can be changed in images of 1 or 3 channels, these have {}",
                         channels);
  }
  const auto height = static_cast<int>(size.height), width = static_cast<int>(size.width);
  cv::Mat image(height, width, CV_8UC(channels), pixels);
  for (const PixelOperation& operation : operations) {
    if (!reads_neighbours(operation.change)) {
      change_values(operation, image);
      continue;
    }
    before_.assign(pixels, pixels + size.height * size.width * channels);
    change_places(operation, cv::Mat(height, width, image.type(), before_.data()), image);
  }
}

}  // namespace millrace
