#include "pipeline/decode.h"

#include <csetjmp>
#include <cstdio>
// jpeglib.h needs size_t and FILE, and does not include them.
#include <jerror.h>
#include <jpeglib.h>

namespace millrace {
namespace {

/// Larger images are taken for damaged headers.
constexpr std::int64_t kMaxPixels = std::int64_t{1} << 28;

void check_channels(int channels) {
  if (channels != 1 && channels != 3) {
    throw InputError("encoded images have 1 or 3 channels, the data set asks for {}", channels);
  }
}

Pixels raw_pixels(const Sample& sample, int channels) {
  const std::int64_t height = sample.height, width = sample.width;
  if (sample.channels != channels || height < 1 || width < 1 ||
      static_cast<std::int64_t>(sample.bytes.size()) != height * width * channels) {
    throw InputError(
        "raw image of {} x {} x {} (height, width, channels) in {} bytes; expected {} channels and {} bytes",
        height, width, sample.channels, sample.bytes.size(), channels, height * width * channels);
  }
  return {reinterpret_cast<const std::uint8_t*>(sample.bytes.data()), height, width, channels,
          sample.encoding == Encoding::raw_chw};
}

/// Inks on white paper. Adobe's files store them inverted, and say so in a marker.
void cmyk_to_rgb(const std::uint8_t* cmyk, std::int64_t pixels, bool inverted, int channels,
                 std::uint8_t* out) {
  for (std::int64_t i = 0; i < pixels; ++i, cmyk += 4) {
    const int flip = inverted ? 0 : 255;
    int rgb[3];
    for (int c = 0; c < 3; ++c) {
      rgb[c] = ((cmyk[c] ^ flip) * (cmyk[3] ^ flip) + 127) / 255;
    }
    if (channels == 3) {
      for (const int value : rgb) {
        *out++ = static_cast<std::uint8_t>(value);
      }
    } else {  // libjpeg's weights of luminance
      *out++ = static_cast<std::uint8_t>((299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2] + 500) / 1000);
    }
  }
}

}  // namespace

/// libjpeg reports errors by longjmp to the frame that called it; such frames hold no objects with
/// destructors.
class Decoder::Jpeg {
 public:
  Jpeg() {
    info_.err = jpeg_std_error(&error_);
    info_.client_data = this;
    error_.error_exit = [](j_common_ptr info) { self(info).jump(); };
    error_.emit_message = [](j_common_ptr info, int level) {
      if (level < 0) {
        self(info).jump();
      }  // a warning: libjpeg would make the pixels up
    };
    jpeg_create_decompress(&info_);
  }
  ~Jpeg() { jpeg_destroy_decompress(&info_); }

  Size2 open(std::span<const std::byte> bytes, int channels) {
    jpeg_abort_decompress(&info_);
    if (!read_header(bytes, channels)) {
      fail();
    }
    const Size2 size(info_.image_height, info_.image_width);
    if (size.height * size.width > kMaxPixels) {
      throw InputError("JPEG of {} x {} (height x width) is larger than {} pixels; shrink or remove it",
                       size.height, size.width, kMaxPixels);
    }
    return size;
  }

  Pixels decode(const SamplePlan& plan, int channels, std::vector<std::uint8_t>& buffer) {
    info_.scale_denom = shrinking(plan);
    jpeg_calc_output_dimensions(&info_);
    const std::int64_t height = info_.output_height, width = info_.output_width;
    const std::int64_t stride = width * info_.output_components;
    auto& decoded = info_.out_color_space == JCS_CMYK ? cmyk_ : buffer;
    if (const auto size = static_cast<std::size_t>(height * stride); decoded.size() < size) {
      decoded.resize(size);
    }
    rows_.resize(static_cast<std::size_t>(height));
    for (std::int64_t y = 0; y < height; ++y) {
      rows_[static_cast<std::size_t>(y)] = decoded.data() + y * stride;
    }
    if (!read_rows()) {
      fail();
    }
    if (&decoded == &cmyk_) {
      buffer.resize(static_cast<std::size_t>(height * width * channels));
      cmyk_to_rgb(cmyk_.data(), height * width, info_.saw_Adobe_marker, channels, buffer.data());
    }
    return {buffer.data(), height, width, channels};
  }

 private:
  static Jpeg& self(j_common_ptr info) { return *static_cast<Jpeg*>(info->client_data); }

  [[noreturn]] void jump() { std::longjmp(jump_, 1); }

  [[noreturn]] void fail() {
    char reason[JMSG_LENGTH_MAX];
    error_.format_message(reinterpret_cast<j_common_ptr>(&info_), reason);
    jpeg_abort_decompress(&info_);
    throw InputError("damaged JPEG: {}; replace or remove it", static_cast<const char*>(reason));
  }

  bool read_header(std::span<const std::byte> bytes, int channels) {
    if (setjmp(jump_) != 0) {
      return false;
    }
    jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    jpeg_read_header(&info_, TRUE);
    const bool inks = info_.jpeg_color_space == JCS_CMYK || info_.jpeg_color_space == JCS_YCCK;
    info_.out_color_space = inks ? JCS_CMYK : channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    return true;
  }

  bool read_rows() {
    if (setjmp(jump_) != 0) {
      return false;
    }
    jpeg_start_decompress(&info_);
    while (info_.output_scanline < info_.output_height) {
      jpeg_read_scanlines(&info_, rows_.data() + info_.output_scanline,
                          info_.output_height - info_.output_scanline);
    }
    jpeg_finish_decompress(&info_);  // reads up to the end marker, so a cut file is noticed
    return true;
  }

  /// The largest power of two up to 8 by which the image may shrink before the resize still has to shrink it.
  static unsigned shrinking(const SamplePlan& plan) {
    unsigned by = 1;
    while (by < 8 && plan.crop.height >= 2 * by * plan.resized.height &&
           plan.crop.width >= 2 * by * plan.resized.width) {
      by *= 2;
    }
    return by;
  }

  jpeg_decompress_struct info_{};
  jpeg_error_mgr error_{};
  std::jmp_buf jump_;
  std::vector<JSAMPROW> rows_;
  std::vector<std::uint8_t> cmyk_;
};

Decoder::Decoder() : jpeg_(std::make_unique<Jpeg>()) {}
Decoder::~Decoder() = default;

Size2 Decoder::open(const Sample& sample, int channels) {
  sample_ = sample;
  sample_.channels = channels;
  switch (sample.encoding) {
    case Encoding::raw_hwc:
    case Encoding::raw_chw:
      pixels_ = raw_pixels(sample, channels);
      break;
    case Encoding::jpeg:
      check_channels(channels);
      return jpeg_->open(sample.bytes, channels);
    case Encoding::other:
      check_channels(channels);
      pixels_ = decode_other(sample.bytes, channels, buffer_);
      break;
  }
  return {pixels_.height, pixels_.width};
}

Pixels Decoder::decode(const SamplePlan& plan) {
  return sample_.encoding == Encoding::jpeg ? jpeg_->decode(plan, sample_.channels, buffer_) : pixels_;
}

}  // namespace millrace
