// Whatever part of a JPEG is decoded, its pixels are those of the whole image.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "base/error.h"
#include "pipeline/image/jpeg_header.h"
#include "pipeline/image/orientation.h"
#include "tests/pipeline/image/jpeg_support.h"

namespace millrace {
namespace {

struct Image {
  std::int64_t height, width;
  int channels;
  std::vector<std::uint8_t> pixels;
};

/// Smooth with some noise: colours differ from block to block.
std::vector<std::uint8_t> picture(int height, int width, int channels, std::mt19937& random) {
  std::vector<std::uint8_t> pixels;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c) {
        pixels.push_back(static_cast<std::uint8_t>((60 * c + 5 * y + 3 * x * (c + 1) + random() % 64) % 256));
      }
    }
  }
  return pixels;
}

/// All of it, by libjpeg alone and as its manual says.
Image decode_whole(const std::vector<std::byte>& bytes, int eighths, int channels) {
  jpeg_decompress_struct info{};
  jpeg_error_mgr error{};
  info.err = jpeg_std_error(&error);
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&info, TRUE);
  info.out_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  info.scale_num = static_cast<unsigned>(eighths);
  info.scale_denom = 8;
  jpeg_start_decompress(&info);
  Image image{info.output_height, info.output_width, channels, {}};
  image.pixels.resize(static_cast<std::size_t>(image.height * image.width * channels));
  while (info.output_scanline < info.output_height) {
    JSAMPROW row =
        image.pixels.data() + info.output_scanline * info.output_width * static_cast<unsigned>(channels);
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return image;
}

SamplePlan crop_plan(Size2 size, const Rectangle& crop, int eighths) {
  SamplePlan plan(size);
  plan.crop = crop;
  plan.resized = {std::max<std::int64_t>(crop.height * eighths / 8, 1),
                  std::max<std::int64_t>(crop.width * eighths / 8, 1)};
  return plan;
}

void check_crop(Decoder& decoder, const std::vector<std::byte>& bytes, const Image& whole, Rectangle crop,
                int eighths) {
  const Size2 size = decoder.open({.bytes = bytes, .encoding = Encoding::jpeg}, whole.channels);
  const Pixels got = decoder.decode(crop_plan(size, crop, eighths));
  const std::int64_t top = crop.top * eighths / 8, left = crop.left * eighths / 8;
  ASSERT_EQ(got.height, ((crop.top + crop.height) * eighths + 7) / 8 - top);
  ASSERT_EQ(got.width, ((crop.left + crop.width) * eighths + 7) / 8 - left);
  ASSERT_EQ(got.channels, whole.channels);
  for (std::int64_t y = 0; y < got.height; ++y) {
    for (std::int64_t i = 0; i < got.width * got.channels; ++i) {
      const auto place = ((top + y) * whole.width + left) * whole.channels + i;
      ASSERT_EQ(got.at(y, 0)[i], whole.pixels[static_cast<std::size_t>(place)])
          << "row " << y << ", column " << i / got.channels << " of a crop of " << crop.height << " x "
          << crop.width << " at (" << crop.top << ", " << crop.left << "), " << eighths << " eighths";
    }
  }
}

/// At each corner and edge, and anywhere.
std::vector<Rectangle> crops(int height, int width, std::mt19937& random) {
  std::vector<Rectangle> result = {{0, 0, height, width},
                                   {0, 0, 1, 1},
                                   {height - 1, width - 1, 1, 1},
                                   {0, width / 2, height, 1},
                                   {height / 2, 0, 1, width},
                                   {16, 16, 16, 16},
                                   {15, 15, 18, 18},
                                   {height - 20, width - 20, 20, 20}};
  for (int i = 0; i < 12; ++i) {
    const auto top = static_cast<std::int64_t>(random() % static_cast<unsigned>(height));
    const auto left = static_cast<std::int64_t>(random() % static_cast<unsigned>(width));
    result.push_back({top, left,
                      1 + static_cast<std::int64_t>(random() % static_cast<unsigned>(height - top)),
                      1 + static_cast<std::int64_t>(random() % static_cast<unsigned>(width - left))});
  }
  return result;
}

TEST(JpegCrop, HasThePixelsOfTheWhole) {
  const unsigned seed = 20261124;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  struct Kind {
    J_COLOR_SPACE space;
    int horizontal, vertical;
  };
  const Kind kinds[] = {{JCS_RGB, 1, 1}, {JCS_RGB, 2, 1},       {JCS_RGB, 2, 2},      {JCS_RGB, 1, 2},
                        {JCS_RGB, 4, 1}, {JCS_GRAYSCALE, 1, 1}, {JCS_GRAYSCALE, 2, 2}};
  Decoder decoder;
  for (const Kind& kind : kinds) {
    for (const int mode : {0, 1, 2, 3}) {  // plain, restart rows, progressive, some restart markers
      for (const auto& [height, width] : {std::pair{97, 131}, {64, 80}, {33, 150}}) {
        const auto bytes = encode_jpeg(picture(height, width, channels_of(kind.space), random), height, width,
                                       {.space = kind.space,
                                        .horizontal = kind.horizontal,
                                        .vertical = kind.vertical,
                                        .progressive = mode == 2,
                                        .restart_rows = mode == 1,
                                        .restart_units = mode == 3 ? 7u : 0u,
                                        .quality = 80});
        ASSERT_EQ(read_jpeg_header(bytes).has_restart_rows(), mode == 1);
        for (const int eighths : {8, 4, 2, 1}) {
          const Image whole = decode_whole(bytes, eighths, mode == 0 && height == 64 ? 1 : 3);
          for (const Rectangle& crop : crops(height, width, random)) {
            if (eighths < 8 && std::min(crop.height, crop.width) < 8) {
              continue;  // the plan would not shrink that far
            }
            SCOPED_TRACE(testing::Message() << "sampled " << kind.horizontal << " x " << kind.vertical
                                            << ", mode " << mode << ", " << height << " x " << width);
            check_crop(decoder, bytes, whole, crop, eighths);
            if (HasFatalFailure()) {
              return;
            }
          }
        }
      }
    }
  }
}

TEST(JpegCrop, LeavesOutRowsByTheirRestartMarkers) {
  std::mt19937 random(1);
  const auto bytes = encode_jpeg(picture(100, 60, 3, random), 100, 60, {.restart_rows = true});
  const JpegHeader header = read_jpeg_header(bytes);
  EXPECT_EQ(header.unit, Size2(16));
  std::vector<std::byte> memory;
  const auto cut = cut_rows(bytes, header, 2, 4, memory);
  EXPECT_LT(cut.size(), bytes.size() / 2);
  EXPECT_EQ(read_jpeg_header(cut).size, Size2(32, 60));
  EXPECT_EQ(read_jpeg_header(cut_rows(bytes, header, 6, 7, memory)).size, Size2(4, 60));

  // A marker that is not the next one: nothing is cut, and the decoder names the damage.
  auto damaged = bytes;
  for (std::size_t i = header.scan_at; i + 1 < damaged.size(); ++i) {
    if (damaged[i] == std::byte{0xFF} && damaged[i + 1] == std::byte{0xD1}) {
      damaged[i + 1] = std::byte{0xD2};
    }
  }
  EXPECT_TRUE(cut_rows(damaged, header, 2, 4, memory).empty());
  Decoder decoder;
  decoder.open({.bytes = damaged, .encoding = Encoding::jpeg}, 3);
  EXPECT_THROW(decoder.decode(crop_plan({100, 60}, {40, 0, 20, 60}, 8)), InputError);
}

TEST(JpegCrop, AMissingEndIsSeenThoughNothingNearItIsDecoded) {
  std::mt19937 random(1);
  Decoder decoder;
  for (const bool restart_rows : {false, true}) {
    auto bytes = encode_jpeg(picture(160, 60, 3, random), 160, 60, {.restart_rows = restart_rows});
    const auto decode = [&] {
      decoder.open({.bytes = bytes, .encoding = Encoding::jpeg}, 3);
      decoder.decode(crop_plan({160, 60}, {20, 0, 20, 60}, 8));
    };
    bytes.insert(bytes.end(), 100, std::byte{0});  // what follows the end does not matter
    EXPECT_NO_THROW(decode());
    bytes.resize(bytes.size() - 101);
    EXPECT_THROW(decode(), InputError);
    bytes.resize(bytes.size() * 3 / 4);
    EXPECT_THROW(decode(), InputError);
  }
}

TEST(JpegCrop, DamageIsAnErrorOrOtherPixels) {
  const unsigned seed = 20261124;
  std::mt19937 random(seed);
  Decoder decoder;
  int errors = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    auto bytes = encode_jpeg(picture(70, 90, 3, random), 70, 90,
                             {.horizontal = 1 + trial % 2,
                              .vertical = 1 + trial / 2 % 2,
                              .progressive = trial % 5 == 0,
                              .restart_rows = trial % 3 == 0,
                              .restart_units = trial % 3 == 1 ? 4u : 0u,
                              .quality = 70});
    for (unsigned i = random() % 4 + 1; i > 0; --i) {
      bytes[random() % bytes.size()] = trial % 4 == 0 ? std::byte{0xFF} : static_cast<std::byte>(random());
    }
    if (trial % 7 == 0) {
      bytes.resize(random() % bytes.size());
    }
    try {
      const Size2 size =
          decoder.open({.bytes = bytes, .encoding = Encoding::jpeg}, 3, {.max_pixels = 1 << 20});
      const auto top = static_cast<std::int64_t>(random()) % size.height;
      const auto left = static_cast<std::int64_t>(random()) % size.width;
      const Pixels got = decoder.decode(
          crop_plan(size, {top, left, size.height - top, size.width - left}, trial % 2 == 0 ? 8 : 4));
      ASSERT_GT(got.height * got.width, 0) << "seed " << seed << ", trial " << trial;
    } catch (const InputError&) {
      ++errors;
    }
  }
  EXPECT_GT(errors, 400);
  EXPECT_LT(errors, 2000);
}

TEST(JpegCrop, IsUprightAsExifSays) {
  // Where the pixel at (y, x) of an upright image of h x w is stored, from the standard's table.
  using Place = std::pair<std::int64_t, std::int64_t>;
  const auto place = [](int orientation, std::int64_t y, std::int64_t x, std::int64_t h,
                        std::int64_t w) -> Place {
    switch (orientation) {
      case 2:
        return {y, w - 1 - x};
      case 3:
        return {h - 1 - y, w - 1 - x};
      case 4:
        return {h - 1 - y, x};
      case 5:
        return {x, y};
      case 6:
        return {w - 1 - x, y};
      case 7:
        return {w - 1 - x, h - 1 - y};
      case 8:
        return {x, h - 1 - y};
      default:
        return {y, x};
    }
  };
  std::mt19937 random(3);
  Decoder decoder;
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const auto bytes = encode_jpeg(picture(70, 90, 3, random), 70, 90, {.orientation = orientation});
    const Image whole = decode_whole(bytes, 8, 3);
    const Size2 size = decoder.open({.bytes = bytes, .encoding = Encoding::jpeg}, 3);
    EXPECT_EQ(size, orientation > 4 ? Size2(90, 70) : Size2(70, 90));
    for (const Rectangle& crop : {Rectangle{0, 0, size.height, size.width}, Rectangle{7, 21, 40, 33}}) {
      decoder.open({.bytes = bytes, .encoding = Encoding::jpeg}, 3);
      const Pixels got = decoder.decode(crop_plan(size, crop, 8));
      for (std::int64_t y = 0; y < crop.height; ++y) {
        for (std::int64_t x = 0; x < crop.width; ++x) {
          const auto [row, column] = place(orientation, crop.top + y, crop.left + x, size.height, size.width);
          const auto i = static_cast<std::size_t>((row * 90 + column) * 3);
          ASSERT_TRUE(std::equal(got.at(y, x), got.at(y, x) + 3, whole.pixels.data() + i))
              << "orientation " << orientation << " at " << y << ", " << x;
        }
      }
    }
    EXPECT_EQ(decoder.open({.bytes = bytes, .encoding = Encoding::jpeg}, 3, {.exif_orientation = false}),
              Size2(70, 90));
  }
}

TEST(ExifOrientation, OtherSegmentsOfItsMarkerAreNotIt) {
  std::mt19937 random(3);
  const auto good = encode_jpeg(picture(8, 16, 3, random), 8, 16, {.orientation = 6});
  const std::string xmp("\xFF\xE1\0\x1Fhttp://ns.adobe.com/xap/1.0/\0", 4 + 29);
  const auto segment = std::as_bytes(std::span(xmp));
  for (const std::size_t at :
       {std::size_t{2}, read_jpeg_header(good).height_at - 5}) {  // before EXIF's and behind
    auto bytes = good;
    bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), segment.begin(), segment.end());
    EXPECT_EQ(read_jpeg_header(bytes).orientation, 6) << at;
  }
}

TEST(JpegCrop, LimitsHoldBeforeMemoryIsSpent) {
  using testing::HasSubstr;
  std::mt19937 random(3);
  auto bytes = encode_jpeg(picture(70, 90, 3, random), 70, 90, {.progressive = true});
  Decoder decoder;
  const auto failure = [&](const DecodeOptions& options) -> std::string {
    try {
      const Size2 size = decoder.open({.bytes = bytes, .encoding = Encoding::jpeg}, 3, options);
      decoder.decode(SamplePlan(size));
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(failure({}), "no error");
  EXPECT_THAT(failure({.max_pixels = 70 * 90 - 1}), HasSubstr("larger than 6299 pixels"));
  EXPECT_THAT(failure({.max_bytes = 100}), HasSubstr("at most 100"));
  bytes[read_jpeg_header(bytes).height_at] = std::byte{0xF0};  // 61,510 x 90
  bytes.resize(5000);
  EXPECT_THAT(failure({}), HasSubstr("in 5000 bytes"));

  // libjpeg takes any number of scans, and goes over the whole image for each.
  bytes = encode_jpeg(picture(70, 90, 3, random), 70, 90, {.separate_scans = true});
  EXPECT_EQ(failure({}), "no error");
  auto scan = bytes.end() - 2;
  while (!(scan[0] == std::byte{0xFF} && scan[1] == std::byte{0xDA})) {
    --scan;
  }
  const std::vector<std::byte> last(scan, bytes.end() - 2);
  for (int i = 0; i < 100; ++i) {
    bytes.insert(bytes.end() - 2, last.begin(), last.end());
  }
  EXPECT_THAT(failure({}), HasSubstr("more scans"));
}

TEST(ExifOrientation, HostileBytesAreUpright) {
  std::mt19937 random(11);
  const auto good = encode_jpeg(picture(8, 8, 3, random), 8, 8, {.orientation = 6});
  const std::size_t start =
      2 + 18 + 4;  // after the start marker, JFIF's segment, and its own marker and length
  const std::vector<std::byte> exif(good.begin() + start, good.begin() + start + 32);
  ASSERT_EQ(exif_orientation(exif), 6);
  for (std::size_t size = 0; size < 24; ++size) {
    EXPECT_EQ(exif_orientation(std::span(exif).first(size)), 1) << size;
  }
  for (int trial = 0; trial < 20000; ++trial) {
    auto changed = exif;
    for (int i = 0; i < 3; ++i) {
      changed[6 + random() % 26] = static_cast<std::byte>(random());
    }
    const int orientation = exif_orientation(changed);
    ASSERT_TRUE(orientation >= 1 && orientation <= 8);
  }
}

}  // namespace
}  // namespace millrace
