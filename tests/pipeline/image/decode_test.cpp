#include "pipeline/image/decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "jpeg_support.h"

namespace millrace {
namespace {

using testing::HasSubstr;

/// A smooth picture, so that JPEG keeps it nearly as it is.
std::vector<std::uint8_t> gradient(int height, int width, int channels) {
  std::vector<std::uint8_t> pixels;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c) {
        pixels.push_back(static_cast<std::uint8_t>((20 * c + 120 * y / height + 70 * x / width) % 256));
      }
    }
  }
  return pixels;
}

std::vector<std::byte> encode(const std::vector<std::uint8_t>& pixels, int height, int width,
                              J_COLOR_SPACE space) {
  return encode_jpeg(pixels, height, width, {.space = space});
}

Sample sample(const std::vector<std::byte>& bytes, Encoding encoding) {
  return {.bytes = bytes, .encoding = encoding};
}

std::string failure(Decoder& decoder, const std::vector<std::byte>& bytes, Encoding encoding) {
  try {
    const Size2 size = decoder.open(sample(bytes, encoding), 3);
    decoder.decode(SamplePlan(size));
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Decode, JpegComesCloseToWhatWasEncoded) {
  const auto pixels = gradient(33, 47, 3);
  const auto bytes = encode(pixels, 33, 47, JCS_RGB);
  Decoder decoder;
  for (int again = 0; again < 2; ++again) {  // the second time with everything reused
    const Size2 size = decoder.open(sample(bytes, Encoding::jpeg), 3);
    EXPECT_EQ(size, Size2(33, 47));
    const Pixels got = decoder.decode(SamplePlan(size));
    ASSERT_EQ(got.height * got.width * got.channels, 33 * 47 * 3);
    for (std::size_t i = 0; i < pixels.size(); ++i) {
      ASSERT_NEAR(got.data[i], pixels[i], 4) << i;
    }
  }
}

TEST(Decode, GreyIsSpreadToThreeChannelsAndColourIsDrawnTogetherToOne) {
  const auto pixels = gradient(9, 8, 1);
  const auto bytes = encode(pixels, 9, 8, JCS_GRAYSCALE);
  Decoder decoder;
  Pixels got = decoder.decode(SamplePlan(decoder.open(sample(bytes, Encoding::jpeg), 3)));
  ASSERT_EQ(got.channels, 3);
  for (std::size_t i = 0; i < pixels.size() * 3; ++i) {
    ASSERT_NEAR(got.data[i], pixels[i / 3], 3);
  }
  const auto colour = encode(gradient(9, 8, 3), 9, 8, JCS_RGB);
  got = decoder.decode(SamplePlan(decoder.open(sample(colour, Encoding::jpeg), 1)));
  EXPECT_EQ(got.channels, 1);
  EXPECT_NEAR(got.data[0], 0.587 * 20 + 0.114 * 40, 4);
}

TEST(Decode, CmykBecomesRgb) {
  // Adobe's convention, which libjpeg's encoder marks: 255 is no ink.
  std::vector<std::uint8_t> inks;
  for (int i = 0; i < 64; ++i) {
    inks.insert(inks.end(), {200, 100, 50, 128});
  }
  const auto bytes = encode(inks, 8, 8, JCS_CMYK);
  Decoder decoder;
  const Pixels got = decoder.decode(SamplePlan(decoder.open(sample(bytes, Encoding::jpeg), 3)));
  const int want[] = {200 * 128 / 255, 100 * 128 / 255, 50 * 128 / 255};
  for (int c = 0; c < 3; ++c) {
    EXPECT_NEAR(got.data[c], want[c], 3);
  }
}

TEST(Decode, ShrinksWhileDecodingWhenThePlanShrinks) {
  const auto bytes = encode(gradient(64, 96, 3), 64, 96, JCS_RGB);
  Decoder decoder;
  SamplePlan plan(decoder.open(sample(bytes, Encoding::jpeg), 3));
  plan.resized = {15, 20};
  Pixels got = decoder.decode(plan);
  EXPECT_EQ(got.height, 16);
  EXPECT_EQ(got.width, 24);
  // The next one is whole again.
  got = decoder.decode(SamplePlan(decoder.open(sample(bytes, Encoding::jpeg), 3)));
  EXPECT_EQ(got.height, 64);
}

TEST(Decode, DamagedJpegsAreErrorsAndTheDecoderGoesOn) {
  const auto pixels = gradient(40, 40, 3);
  const auto good = encode(pixels, 40, 40, JCS_RGB);
  Decoder decoder;
  for (const std::size_t kept : {std::size_t{0}, std::size_t{1}, std::size_t{30}, good.size() / 2,
                                 good.size() - 40, good.size() - 2}) {
    EXPECT_THAT(
        failure(decoder, {good.begin(), good.begin() + static_cast<std::ptrdiff_t>(kept)}, Encoding::jpeg),
        HasSubstr("damaged JPEG"))
        << "cut to " << kept << " of " << good.size() << " bytes";
    EXPECT_EQ(failure(decoder, good, Encoding::jpeg), "no error");
  }
  auto text = good;
  std::fill(text.begin(), text.end(), std::byte{'x'});
  EXPECT_THAT(failure(decoder, text, Encoding::jpeg), HasSubstr("damaged JPEG"));
  auto marked = good;  // a restart marker where none belongs is only a warning to libjpeg
  marked[good.size() * 3 / 4] = std::byte{0xff};
  marked[good.size() * 3 / 4 + 1] = std::byte{0xd3};
  EXPECT_THAT(failure(decoder, marked, Encoding::jpeg), HasSubstr("damaged JPEG"));
}

TEST(Decode, RawImagesMustHaveTheSizeTheyClaim) {
  std::vector<std::byte> bytes(2 * 3 * 3);
  Decoder decoder;
  Sample raw{.bytes = bytes, .encoding = Encoding::raw_chw, .height = 2, .width = 3, .channels = 3};
  EXPECT_EQ(decoder.open(raw, 3), Size2(2, 3));
  const Pixels got = decoder.decode(SamplePlan(Size2(2, 3)));
  EXPECT_TRUE(got.planar());
  EXPECT_EQ(got.data, reinterpret_cast<const std::uint8_t*>(bytes.data())) << "raw pixels are not copied";
  EXPECT_THROW(decoder.open(raw, 1), InputError);
  raw.width = 4;
  EXPECT_THROW(decoder.open(raw, 3), InputError);
}

/// 2 x 2 RGB: red, green; blue, white. Written once by hand with Python's zlib.
constexpr unsigned char kPng[] = {
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44,
    0x52, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x02, 0x08, 0x02, 0x00, 0x00, 0x00, 0xfd,
    0xd4, 0x9a, 0x73, 0x00, 0x00, 0x00, 0x12, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xf8,
    0xcf, 0xc0, 0xc0, 0x00, 0xc2, 0x0c, 0xff, 0x81, 0x00, 0x00, 0x1f, 0xee, 0x05, 0xfb, 0x0b,
    0xd9, 0x68, 0x8b, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
};

TEST(Decode, PngComesInRgb) {
  const auto* first = reinterpret_cast<const std::byte*>(kPng);
  const std::vector<std::byte> png(first, first + sizeof kPng);
  Decoder decoder;
  const Size2 size = decoder.open(sample(png, Encoding::png), 3);
  ASSERT_EQ(size, Size2(2));
  const Pixels got = decoder.decode(SamplePlan(size));
  const std::vector<int> want = {255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255};
  EXPECT_EQ(std::vector<int>(got.data, got.data + 12), want);
  EXPECT_NE(failure(decoder, {png.begin(), png.end() - 30}, Encoding::png), "no error");
  EXPECT_NE(failure(decoder, {}, Encoding::png), "no error");
}

TEST(Decode, NothingButJpegAndPngIsRead) {
  Decoder decoder;
  for (const std::string_view text :
       {"P5\n1 1\n255\n7", "<VRTDataset rasterXSize=\"1\" rasterYSize=\"1\"/>"}) {
    const auto bytes = std::as_bytes(std::span(text));
    EXPECT_THAT(failure(decoder, {bytes.begin(), bytes.end()}, Encoding::png), HasSubstr("PNG"));
  }
}

}  // namespace
}  // namespace millrace
