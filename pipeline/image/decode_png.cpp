#include "pipeline/image/decode_png.h"

#include <cassert>
#include <csetjmp>
#include <cstring>
#include <png.h>
#include <string>

#include "pipeline/image/orientation.h"

namespace millrace {

namespace {

/// Decodes one file. libpng's own handlers would write to standard error; here an error is thrown, as is a
/// warning about pixels, and one about what stands around them is passed over.
///
/// libpng reports errors by longjmp to the frame that called it; such frames hold no objects with
/// destructors.
class PngDecoder {
 public:
  explicit PngDecoder(std::span<const std::byte> bytes);
  ~PngDecoder();
  PngDecoder(const PngDecoder&) = delete;
  PngDecoder& operator=(const PngDecoder&) = delete;

  Pixels decode(int channels, const DecodeOptions& options, std::vector<std::uint8_t>& buffer);

 private:
  bool read_header();
  bool start(int channels);
  bool read_rows();
  int orientation() const;
  [[noreturn]] void fail();

  std::span<const std::byte> rest_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::string reason_;
  std::vector<png_bytep> rows_;
};

PngDecoder::PngDecoder(std::span<const std::byte> bytes) : rest_(bytes) {
  const auto on_error = [](png_structp png, png_const_charp reason) {
    static_cast<PngDecoder*>(png_get_error_ptr(png))->reason_ = reason;
    png_longjmp(png, 1);
  };
  png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, [](png_structp, png_const_charp) {});
  info_ = png_ != nullptr ? png_create_info_struct(png_) : nullptr;
  if (info_ == nullptr) {
    png_destroy_read_struct(&png_, nullptr, nullptr);
    throw MachineError("cannot decode a PNG: no memory");
  }
  png_set_read_fn(png_, this, [](png_structp png, png_bytep to, std::size_t size) {
    auto& rest = static_cast<PngDecoder*>(png_get_io_ptr(png))->rest_;
    if (size > rest.size()) {
      png_error(png, "it is cut off");
    }
    std::memcpy(to, rest.data(), size);
    rest = rest.subspan(size);
  });
  png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  // Texts and profiles would be unpacked, to megabytes each, and kept; only the orientation is used.
  png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  constexpr png_byte kExif[] = "eXIf";
  png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_AS_DEFAULT, kExif, 1);
}

PngDecoder::~PngDecoder() { png_destroy_read_struct(&png_, &info_, nullptr); }

void PngDecoder::fail() { throw InputError("damaged PNG: {}; replace or remove it", reason_); }

bool PngDecoder::read_header() {
  if (setjmp(png_jmpbuf(png_)) != 0) {
    return false;
  }
  png_read_info(png_, info_);
  return true;
}

bool PngDecoder::start(int channels) {
  if (setjmp(png_jmpbuf(png_)) != 0) {
    return false;
  }
  png_set_benign_errors(png_, 0);
  png_set_expand(png_);
  png_set_strip_16(png_);
  png_set_strip_alpha(png_);
  if (channels == 3) {
    png_set_gray_to_rgb(png_);
  } else {
    constexpr int kSilently = 1;
    png_set_rgb_to_gray(png_, kSilently, 0.299, 0.587);
  }
  png_set_interlace_handling(png_);
  png_read_update_info(png_, info_);
  return true;
}

bool PngDecoder::read_rows() {
  if (setjmp(png_jmpbuf(png_)) != 0) {
    return false;
  }
  png_read_image(png_, rows_.data());
  png_read_end(png_, info_);
  return true;
}

int PngDecoder::orientation() const {
  png_bytep exif = nullptr;
  png_uint_32 size = 0;
  png_get_eXIf_1(png_, info_, &size, &exif);
  return tiff_orientation(std::as_bytes(std::span(exif, size)));
}

Pixels PngDecoder::decode(int channels, const DecodeOptions& options, std::vector<std::uint8_t>& buffer) {
  const std::size_t bytes = rest_.size();
  if (!read_header()) {
    fail();
  }
  const std::int64_t height = png_get_image_height(png_, info_), width = png_get_image_width(png_, info_);
  if (height * width > options.max_pixels) {
    throw InputError("PNG of {} x {} (height x width) is larger than {} pixels; shrink or remove it", height,
                     width, options.max_pixels);
  }
  constexpr std::size_t kMostPerByte = 1032;  // of deflate
  if (png_get_rowbytes(png_, info_) * static_cast<std::size_t>(height) / kMostPerByte > bytes) {
    throw InputError("damaged PNG: {} x {} (height x width) in {} bytes; replace or remove it", height, width,
                     bytes);
  }
  if (!start(channels)) {
    fail();
  }
  const auto stride = static_cast<std::size_t>(width * channels);
  assert(png_get_rowbytes(png_, info_) == stride);
  buffer.resize(stride * static_cast<std::size_t>(height));
  for (std::int64_t y = 0; y < height; ++y) {
    rows_.push_back(buffer.data() + static_cast<std::size_t>(y) * stride);
  }
  if (!read_rows()) {
    fail();
  }
  const Pixels pixels{buffer.data(), height, width, channels, width * channels};
  const int orientation = options.exif_orientation ? this->orientation() : 1;
  if (orientation == 1) {
    return pixels;
  }
  std::vector<std::uint8_t> upright;
  const Pixels turned = turn_upright(pixels, orientation, upright);
  buffer.swap(upright);
  return turned;
}

}  // namespace

Pixels decode_png(std::span<const std::byte> bytes, int channels, const DecodeOptions& options,
                  std::vector<std::uint8_t>& buffer) {
  constexpr std::size_t kSignature = 8;
  if (bytes.size() < kSignature ||
      png_sig_cmp(reinterpret_cast<png_const_bytep>(bytes.data()), 0, kSignature) != 0) {
    throw InputError("is neither a JPEG nor a PNG file; convert, replace or remove it");
  }
  return PngDecoder(bytes).decode(channels, options, buffer);
}

}  // namespace millrace
