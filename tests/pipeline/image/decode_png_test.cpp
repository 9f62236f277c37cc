#include "pipeline/image/decode_png.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <gmock/gmock.h>
#include <png.h>
#include <random>
#include <sys/resource.h>
#include <zlib.h>

#include "base/error.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

using Bytes = std::vector<std::byte>;

struct Kind {
  int color, depth;
};
constexpr Kind kKinds[] = {
    {PNG_COLOR_TYPE_GRAY, 1},      {PNG_COLOR_TYPE_GRAY, 2},      {PNG_COLOR_TYPE_GRAY, 4},
    {PNG_COLOR_TYPE_GRAY, 8},      {PNG_COLOR_TYPE_GRAY, 16},     {PNG_COLOR_TYPE_PALETTE, 1},
    {PNG_COLOR_TYPE_PALETTE, 4},   {PNG_COLOR_TYPE_PALETTE, 8},   {PNG_COLOR_TYPE_RGB, 8},
    {PNG_COLOR_TYPE_RGB, 16},      {PNG_COLOR_TYPE_RGB_ALPHA, 8}, {PNG_COLOR_TYPE_RGB_ALPHA, 16},
    {PNG_COLOR_TYPE_GRAY_ALPHA, 8}};
constexpr int kPngWidth = 13, kPngHeight = 9;

/// A file and what was packed into it.
struct Picture {
  Kind kind;
  Bytes file;
  std::vector<std::vector<png_byte>> rows;
  std::vector<png_color> palette;

  int sample(int y, int i) const {
    const auto& row = rows[static_cast<std::size_t>(y)];
    if (kind.depth >= 8) {  // of 16 bits the upper ones
      return row[static_cast<std::size_t>(i * kind.depth / 8)];
    }
    const int bit = i * kind.depth;
    return row[static_cast<std::size_t>(bit / 8)] >> (8 - kind.depth - bit % 8) & ((1 << kind.depth) - 1);
  }
  std::array<int, 3> rgb(int y, int x) const {
    if (kind.color == PNG_COLOR_TYPE_PALETTE) {
      const png_color color = palette[static_cast<std::size_t>(sample(y, x))];
      return {color.red, color.green, color.blue};
    }
    const int alpha = (kind.color & PNG_COLOR_MASK_ALPHA) != 0 ? 1 : 0;
    if ((kind.color & PNG_COLOR_MASK_COLOR) == 0) {
      const int most = kind.depth < 8 ? (1 << kind.depth) - 1 : 255;
      const int grey = sample(y, x * (1 + alpha)) * 255 / most;
      return {grey, grey, grey};
    }
    const int first = x * (3 + alpha);
    return {sample(y, first), sample(y, first + 1), sample(y, first + 2)};
  }
};

/// Random pixels; palettes have every entry that the depth allows.
Picture draw(Kind kind, bool interlaced, std::mt19937& random) {
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  Picture picture{.kind = kind};
  png_set_write_fn(
      png, &picture.file,
      [](png_structp p, png_bytep data, std::size_t size) {
        auto& to = *static_cast<Bytes*>(png_get_io_ptr(p));
        const auto* from = reinterpret_cast<const std::byte*>(data);
        to.insert(to.end(), from, from + size);
      },
      nullptr);
  png_set_IHDR(png, info, kPngWidth, kPngHeight, kind.depth, kind.color,
               interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  const auto byte = [&] { return static_cast<png_byte>(random()); };
  if (kind.color == PNG_COLOR_TYPE_PALETTE) {
    picture.palette.resize(std::size_t{1} << kind.depth);
    for (png_color& color : picture.palette) {
      color = {byte(), byte(), byte()};
    }
    png_set_PLTE(png, info, picture.palette.data(), static_cast<int>(picture.palette.size()));
    png_byte alpha[] = {10, 200};
    png_set_tRNS(png, info, alpha, 2, nullptr);
  }
  png_write_info(png, info);
  std::vector<png_bytep> rows;
  picture.rows.resize(kPngHeight);
  for (auto& row : picture.rows) {
    row.resize(png_get_rowbytes(png, info));
    std::generate(row.begin(), row.end(), byte);
    rows.push_back(row.data());
  }
  png_write_image(png, rows.data());
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
  return picture;
}

std::uint32_t word_at(const Bytes& bytes, std::size_t at) {
  std::uint32_t word = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    word = word << 8 | std::to_integer<std::uint32_t>(bytes[at + i]);
  }
  return word;
}

void put_word(Bytes& bytes, std::size_t at, std::uint32_t word) {
  for (std::size_t i = 0; i < 4; ++i) {
    bytes[at + i] = static_cast<std::byte>(word >> (24 - 8 * i));
  }
}

/// Where the chunk of this name begins, at its length.
std::size_t find(const Bytes& bytes, const char* name) {
  std::size_t at = 8;
  while (std::memcmp(&bytes[at + 4], name, 4) != 0) {
    at += 12 + word_at(bytes, at);
  }
  return at;
}

/// Makes all check sums right, as far as chunks can be followed.
Bytes sealed(Bytes bytes) {
  for (std::size_t at = 8; at + 12 <= bytes.size();) {
    const std::size_t length = word_at(bytes, at);
    if (length > bytes.size() - at - 12) {
      break;
    }
    const auto* name = reinterpret_cast<const Bytef*>(&bytes[at + 4]);
    put_word(bytes, at + 8 + length,
             static_cast<std::uint32_t>(crc32(0, name, static_cast<uInt>(length + 4))));
    at += 12 + length;
  }
  return bytes;
}

Bytes with_chunk(Bytes bytes, const char* before, const std::string& name, const std::string& data) {
  const std::string text = std::string(4, '\0') + name + data + std::string(4, '\0');
  const std::size_t at = find(bytes, before);
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), first, first + text.size());
  put_word(bytes, at, static_cast<std::uint32_t>(data.size()));
  return sealed(bytes);
}

std::string failure(const Bytes& bytes, const DecodeOptions& options = {}) {
  std::vector<std::uint8_t> buffer;
  try {
    decode_png(bytes, 3, options, buffer);
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

/// Whatever happens, libpng has nothing to say to the user by itself.
class Png : public ::testing::Test {
 protected:
  Png() { ::testing::internal::CaptureStderr(); }
  ~Png() override { EXPECT_EQ(::testing::internal::GetCapturedStderr(), ""); }
  std::mt19937 random_{7};
  const Bytes rgb_ = draw({PNG_COLOR_TYPE_RGB, 8}, false, random_).file;
  const Bytes palette_ = draw({PNG_COLOR_TYPE_PALETTE, 4}, false, random_).file;
};

TEST_F(Png, EveryKindIsReadAsItWasDrawn) {
  for (const Kind kind : kKinds) {
    for (const bool interlaced : {false, true}) {
      const Picture picture = draw(kind, interlaced, random_);
      std::vector<std::uint8_t> colours, greys;
      const Pixels colour = decode_png(picture.file, 3, {}, colours);
      const Pixels grey = decode_png(picture.file, 1, {}, greys);
      ASSERT_EQ(Size2(colour.height, colour.width), Size2(kPngHeight, kPngWidth));
      ASSERT_EQ(Size2(grey.height, grey.width), Size2(kPngHeight, kPngWidth));
      for (int y = 0; y < kPngHeight; ++y) {
        for (int x = 0; x < kPngWidth; ++x) {
          const auto [r, g, b] = picture.rgb(y, x);
          const auto* got = colour.at(y, x);
          ASSERT_TRUE(got[0] == r && got[1] == g && got[2] == b)
              << "colour type " << kind.color << ", depth " << kind.depth << ", interlaced " << interlaced;
          ASSERT_NEAR(*grey.at(y, x), 0.299 * r + 0.587 * g + 0.114 * b, 1.1);
        }
      }
    }
  }
}

TEST_F(Png, ComesUpright) {
  const std::string orientation_6("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0", 26);
  const Bytes bytes = with_chunk(rgb_, "IDAT", "eXIf", orientation_6);
  std::vector<std::uint8_t> buffer, stored;
  decode_png(rgb_, 3, {}, stored);
  const Pixels got = decode_png(bytes, 3, {}, buffer);
  ASSERT_EQ(got.height, kPngWidth);
  ASSERT_EQ(got.width, kPngHeight);
  for (int c = 0; c < 3; ++c) {  // the stored image's lower left corner is the upper left
    EXPECT_EQ(got.at(0, 0)[c], stored[static_cast<std::size_t>((kPngHeight - 1) * kPngWidth * 3 + c)]);
  }
  EXPECT_EQ(decode_png(bytes, 3, {.exif_orientation = false}, buffer).height, kPngHeight);
}

TEST_F(Png, DamageWithRightCheckSumsIsNamed) {
  const auto changed = [](Bytes bytes, const char* chunk, std::size_t place, int value) {
    bytes[find(bytes, chunk) + 8 + place] = static_cast<std::byte>(value);
    return sealed(bytes);
  };
  const auto without = [](Bytes bytes, const char* chunk) {
    const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(find(bytes, chunk));
    bytes.erase(
        at,
        at + 12 + static_cast<std::ptrdiff_t>(word_at(bytes, static_cast<std::size_t>(at - bytes.begin()))));
    return bytes;
  };
  const struct {
    const char* what;
    Bytes bytes;
  } table[] = {
      {"no width", changed(rgb_, "IHDR", 3, 0)},
      {"a depth of 3", changed(rgb_, "IHDR", 8, 3)},
      {"RGB of 4 bits", changed(rgb_, "IHDR", 8, 4)},
      {"colour type 5", changed(rgb_, "IHDR", 9, 5)},
      {"another compression", changed(rgb_, "IHDR", 10, 1)},
      {"another filter", changed(rgb_, "IHDR", 11, 1)},
      {"another interlacing", changed(rgb_, "IHDR", 12, 7)},
      {"more rows than there are", changed(rgb_, "IHDR", 7, kPngHeight + 1)},
      {"no zlib stream", changed(rgb_, "IDAT", 0, 0)},
      {"a damaged zlib stream", changed(rgb_, "IDAT", 2, 0xFF)},
      {"another sum of the pixels", changed(rgb_, "IDAT", word_at(rgb_, find(rgb_, "IDAT")) - 1, 0)},
      {"no pixels", without(rgb_, "IDAT")},
      {"no header", without(rgb_, "IHDR")},
      {"no end", without(rgb_, "IEND")},
      {"two headers", with_chunk(rgb_, "IDAT", "IHDR", std::string(13, '\1'))},
      {"an unknown chunk that is critical", with_chunk(rgb_, "IDAT", "ABCD", "x")},
      {"no palette", without(palette_, "PLTE")},
      {"a palette of no whole colours", with_chunk(without(palette_, "PLTE"), "IDAT", "PLTE", "abcd")},
      {"a palette behind the pixels",
       with_chunk(without(palette_, "PLTE"), "IEND", "PLTE", std::string(48, 'a'))},
  };
  for (const auto& row : table) {
    EXPECT_THAT(failure(row.bytes), HasSubstr("damaged PNG")) << row.what;
  }
  Bytes wrong_sum = with_chunk(rgb_, "IDAT", "tEXt", "Comment");
  wrong_sum[find(wrong_sum, "tEXt") + 8] ^= std::byte{1};
  EXPECT_THAT(failure(wrong_sum), HasSubstr("damaged PNG"));
  EXPECT_THAT(failure(rgb_, {.max_pixels = kPngWidth * kPngHeight - 1}), HasSubstr("larger than 116 pixels"));
  EXPECT_THAT(failure(changed(changed(rgb_, "IHDR", 1, 2), "IHDR", 6, 2)), HasSubstr("bytes"));
}

TEST_F(Png, OddAncillaryChunksArePassedOver) {
  for (const auto& [name, data] :
       std::vector<std::pair<std::string, std::string>>{{"tRNS", std::string(5, 'x')},
                                                        {"gAMA", std::string(4, '\0')},
                                                        {"iCCP", "profile"},
                                                        {"sRGB", "\x09"},
                                                        {"cHRM", "short"},
                                                        {"PLTE", "abcd"},
                                                        {"eXIf", "no directory"},
                                                        {"zTXt", "no text"},
                                                        {"pHYs", ""}}) {
    EXPECT_EQ(failure(with_chunk(rgb_, "IDAT", name, data)), "no error") << name;
  }
}

TEST_F(Png, PackedTextsTakeNoMemory) {
  const std::string text(7'000'000, 'x');
  std::string packed(compressBound(text.size()), '\0');
  uLongf size = packed.size();
  compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(text.data()),
           text.size());
  packed.resize(size);
  Bytes bytes = rgb_;
  for (int i = 0; i < 64; ++i) {
    bytes = with_chunk(bytes, "IDAT", "zTXt", std::string("key\0\0", 5) + packed);
  }
  const auto peak = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;  // KiB
  };
  const auto before = peak();
  EXPECT_EQ(failure(bytes), "no error");
  EXPECT_LT(peak() - before, 100'000);
}

TEST_F(Png, CutAnywhereIsAnError) {
  for (std::size_t size = 8; size < rgb_.size(); ++size) {
    ASSERT_THAT(failure({rgb_.begin(), rgb_.begin() + static_cast<std::ptrdiff_t>(size)}),
                HasSubstr("damaged PNG"))
        << size;
  }
}

TEST_F(Png, RandomDamageIsAnErrorOrAPicture) {
  int errors = 0, pictures = 0;
  for (int trial = 0; trial < 6000; ++trial) {
    const auto& kind = kKinds[random_() % std::size(kKinds)];
    Bytes bytes = draw(kind, random_() % 2 == 0, random_).file;
    for (int i = 0; i <= trial % 3; ++i) {
      bytes[8 + random_() % (bytes.size() - 8)] = static_cast<std::byte>(random_());
    }
    (failure(sealed(bytes), {.max_pixels = 1 << 20}) == "no error" ? pictures : errors) += 1;
  }
  EXPECT_GT(errors, 1000);
  EXPECT_GT(pictures, 100);
}

}  // namespace
}  // namespace millrace
