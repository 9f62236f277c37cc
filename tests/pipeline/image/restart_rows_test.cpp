#include "pipeline/image/restart_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "base/error.h"
#include "jpeg_support.h"
#include "pipeline/image/jpeg_header.h"

namespace millrace {
namespace {

using testing::HasSubstr;

std::vector<std::uint8_t> noise(int height, int width, int channels) {
  std::mt19937 random(5);
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(height * width * channels));
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    pixels[i] = static_cast<std::uint8_t>(i / 50 + random() % 64);
  }
  return pixels;
}

std::vector<std::uint8_t> decoded(const std::vector<std::byte>& jpeg) {
  Decoder decoder;
  const Size2 size = decoder.open({.bytes = jpeg, .encoding = Encoding::jpeg}, 3);
  const Pixels pixels = decoder.decode(SamplePlan(size));
  std::vector<std::uint8_t> result;
  for (std::int64_t y = 0; y < pixels.height; ++y) {
    result.insert(result.end(), pixels.at(y, 0), pixels.at(y, 0) + pixels.width * pixels.channels);
  }
  return result;
}

std::vector<std::byte> test_jpeg(const JpegOptions& options) {
  return encode_jpeg(noise(75, 123, channels_of(options.space)), 75, 123, options);
}

int restart_markers(const std::vector<std::byte>& jpeg, std::size_t begin) {
  int count = 0;
  for (std::size_t i = begin; i + 1 < jpeg.size(); ++i) {
    const int next = std::to_integer<int>(jpeg[i + 1]);
    count += jpeg[i] == std::byte{0xFF} && next >= 0xD0 && next <= 0xD7;
  }
  return count;
}

std::string failure(RestartRows& rows, std::span<const std::byte> jpeg) {
  try {
    rows.rewrite(jpeg);
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

TEST(RestartRows, PixelsStayAndEachRowOfUnitsEndsInAMarker) {
  RestartRows rows;
  std::vector<JpegOptions> cases;
  for (const int horizontal : {1, 2}) {
    for (const int vertical : {1, 2}) {
      cases.push_back({.horizontal = horizontal, .vertical = vertical, .quality = 80});
    }
  }
  cases.push_back({.progressive = true, .quality = 80});
  cases.push_back({.separate_scans = true, .quality = 80});
  cases.push_back({.restart_rows = true});
  cases.push_back({.orientation = 6});
  cases.push_back({.space = JCS_GRAYSCALE, .horizontal = 1, .vertical = 1});
  cases.push_back({.space = JCS_CMYK, .horizontal = 1, .vertical = 1});
  cases.push_back({.space = JCS_GRAYSCALE, .horizontal = 1, .vertical = 1, .progressive = true});
  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    const auto source = test_jpeg(cases[i]);
    const auto result = rows.rewrite(source);
    EXPECT_EQ(decoded(result), decoded(source));
    const JpegHeader header = read_jpeg_header(result);
    EXPECT_TRUE(header.has_restart_rows());
    EXPECT_EQ(header.orientation, read_jpeg_header(source).orientation);
    EXPECT_EQ(restart_markers(result, header.scan_at), header.unit_rows() - 1);
    EXPECT_EQ(rows.rewrite(result), result);
  }
}

/// Four inks without Adobe's marker are not inverted, and must not be taken for inverted ones afterwards.
TEST(RestartRows, NoMarkerIsAdded) {
  auto source = test_jpeg({.space = JCS_CMYK, .horizontal = 1, .vertical = 1});
  ASSERT_EQ(source[3], std::byte{0xEE});
  source.erase(source.begin() + 2, source.begin() + 2 + 16);
  EXPECT_EQ(decoded(RestartRows().rewrite(source)), decoded(source));
}

TEST(RestartRows, OtherMarkersAreKept) {
  auto source = test_jpeg({});
  const std::string text = std::string(
                               "\xFF\xFE\x00\x09"
                               "a place",
                               11) +
                           std::string(
                               "\xFF\xE2\x00\x08"
                               "colour",
                               10);
  const auto bytes = std::as_bytes(std::span(text));
  source.insert(source.begin() + 2, bytes.begin(), bytes.end());
  const auto result = RestartRows().rewrite(source);
  EXPECT_NE(std::search(result.begin(), result.end(), bytes.begin(), bytes.end()), result.end());
  EXPECT_EQ(decoded(result), decoded(source));
}

TEST(RestartRows, DamagedAndForeignFilesAreErrors) {
  RestartRows rows;
  const auto good = test_jpeg({.quality = 60}), progressive = test_jpeg({.progressive = true, .quality = 60});
  for (const auto& jpeg : {good, progressive}) {
    for (std::size_t size = 0; size < jpeg.size(); size += 1 + size / 30) {
      EXPECT_THAT(failure(rows, std::span(jpeg).first(size)), HasSubstr("JPEG")) << size;
    }
    EXPECT_EQ(failure(rows, jpeg), "no error");
  }
  EXPECT_THAT(failure(rows, std::span(good).first(good.size() / 2)), HasSubstr("75 x 123"));

  std::mt19937 random(3);  // most flipped bits are seen, others make another picture: no crash is what counts
  for (int i = 0; i < 3000; ++i) {
    auto bad = i % 2 ? good : progressive;
    for (int k = 0; k < 3; ++k) {
      bad[random() % bad.size()] = static_cast<std::byte>(random());
    }
    failure(rows, bad);
  }
}

TEST(RestartRows, HugeHeadersTakeNoMemory) {
  auto jpeg = test_jpeg({.progressive = true});
  RestartRows rows;
  const auto failure_of_side = [&](std::byte half) {
    std::fill_n(jpeg.begin() + static_cast<std::ptrdiff_t>(read_jpeg_header(jpeg).height_at), 4, half);
    return failure(rows, jpeg);
  };
  EXPECT_THAT(failure_of_side(std::byte{0xFE}), HasSubstr("JPEG of 65278 x 65278"));
  EXPECT_THAT(failure_of_side(std::byte{0x3E}), HasSubstr("15934 x 15934 (height x width) in"))
      << "few enough pixels, but not for so few bytes";
}

}  // namespace
}  // namespace millrace
