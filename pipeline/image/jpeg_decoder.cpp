#include "pipeline/image/jpeg_decoder.h"

#include <algorithm>
#include <array>

#include "pipeline/image/orientation.h"

namespace millrace {
namespace {

/// Grows only, so that memory is not cleared again and again.
template <typename T>
T* at_least(std::vector<T>& memory, std::int64_t size) {
  if (memory.size() < static_cast<std::size_t>(size)) {
    memory.resize(static_cast<std::size_t>(size));
  }
  return memory.data();
}

/// libjpeg-turbo decodes fast while more bytes than the largest unit takes lie ahead. In small files they
/// never do, so such are copied in front of end markers.
constexpr std::size_t kSmallFile = 16384;
constexpr auto kAhead = [] {
  std::array<std::byte, 512 * D_MAX_BLOCKS_IN_MCU> markers{};
  for (std::size_t i = 0; i < markers.size(); ++i) {
    markers[i] = std::byte(i % 2 == 0 ? 0xFF : JPEG_EOI);
  }
  return markers;
}();

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

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

/// The smallest of 8, 4, 2 and 1 eighths at which the crop is as large as it is wanted. libjpeg-turbo has
/// vector code for these alone; others would take longer than the whole size.
int choose_eighths(Size2 crop, Size2 wanted) {
  int eighths = 8;
  while (eighths > 1 && crop.height * eighths >= 16 * wanted.height &&
         crop.width * eighths >= 16 * wanted.width) {
    eighths /= 2;
  }
  return eighths;
}

}  // namespace

JpegDecoder::JpegDecoder() {
  info_.err = jpeg_std_error(&error_);
  info_.client_data = this;
  error_.error_exit = [](j_common_ptr info) { self(info).jump(); };
  error_.emit_message = [](j_common_ptr info, int level) {
    if (level < 0) {
      self(info).jump();
    }  // a warning: libjpeg would make the pixels up
  };
  progress_.progress_monitor = [](j_common_ptr info) {
    JpegDecoder& decoder = self(info);
    if (decoder.info_.input_scan_number > kMostJpegScans) {
      decoder.reason_ = "more scans than a picture needs";
      decoder.jump();
    }
  };
  jpeg_create_decompress(&info_);
  info_.progress = &progress_;
}

JpegDecoder::~JpegDecoder() { jpeg_destroy_decompress(&info_); }

void JpegDecoder::fail() {
  char reason[JMSG_LENGTH_MAX];
  error_.format_message(reinterpret_cast<j_common_ptr>(&info_), reason);
  jpeg_abort_decompress(&info_);
  const char* given = std::exchange(reason_, nullptr);
  throw InputError("damaged JPEG: {}; replace or remove it", given != nullptr ? given : reason);
}

Size2 JpegDecoder::open(std::span<const std::byte> bytes, const DecodeOptions& options) {
  bytes_ = bytes;
  header_ = read_jpeg_header(bytes);
  const Size2 size = header_.size;
  check_jpeg_size(header_, bytes.size(), options.max_pixels);
  if (!options.exif_orientation) {
    header_.orientation = 1;
  }
  return oriented(size, header_.orientation);
}

JpegDecoder::Window JpegDecoder::place(const Rectangle& crop) const {
  const Size2 whole(divide_up(header_.size.height * eighths_, 8),
                    divide_up(header_.size.width * eighths_, 8));
  // Ends are rounded outward: a crop never becomes empty.
  const std::int64_t top = crop.top * eighths_ / 8, left = crop.left * eighths_ / 8;
  const std::int64_t bottom = divide_up((crop.top + crop.height) * eighths_, 8);
  const std::int64_t right = divide_up((crop.left + crop.width) * eighths_, 8);
  return {whole,
          {top, left, bottom - top, right - left},
          std::max<std::int64_t>(left - 1, 0),
          std::min(right + 1, whole.width)};
}

std::span<const std::byte> JpegDecoder::needed(Window& window) {
  Rectangle& crop = window.crop;
  const std::int64_t unit = header_.unit.height * eighths_ / 8;
  const std::int64_t first = std::max<std::int64_t>(crop.top - 1, 0) / unit;
  const std::int64_t last = std::min(divide_up(crop.top + crop.height + 1, unit), header_.unit_rows());
  std::byte* copy = at_least(cut_, static_cast<std::int64_t>(bytes_.size() + kAhead.size()));
  std::size_t size = 0;
  if (header_.has_restart_rows() && last - first < header_.unit_rows()) {
    size = cut_rows(bytes_, header_, first, last, cut_).size();
  }
  if (size > 0) {
    crop.top -= first * unit;
    window.whole.height = std::min(window.whole.height, last * unit) - first * unit;
  } else if (bytes_.size() > kSmallFile) {
    return bytes_;
  } else {
    size = bytes_.size();
    std::copy(bytes_.begin(), bytes_.end(), copy);
  }
  std::copy(kAhead.begin(), kAhead.end(), copy + size);
  return {copy, size + kAhead.size()};
}

bool JpegDecoder::start(std::span<const std::byte> bytes, int channels, Window& window) {
  if (setjmp(jump_) != 0) {
    return false;
  }
  jpeg_abort_decompress(&info_);
  jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&info_, TRUE);
  const bool inks = info_.jpeg_color_space == JCS_CMYK || info_.jpeg_color_space == JCS_YCCK;
  info_.out_color_space = inks ? JCS_CMYK : channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  info_.scale_num = static_cast<unsigned>(eighths_);
  info_.scale_denom = 8;
  restart_interval_ = header_.sequential ? std::exchange(info_.restart_interval, 0) : 0;
  info_.do_block_smoothing = FALSE;  // it would look across the window's border
  jpeg_start_decompress(&info_);
  restart_quickly();
  if (info_.output_height != window.whole.height || info_.output_width != window.whole.width) {
    reason_ = "has two sizes";
    jump();
  }
  if (window.right - window.left < window.whole.width) {
    auto left = static_cast<JDIMENSION>(window.left), width = static_cast<JDIMENSION>(window.right) - left;
    jpeg_crop_scanline(&info_, &left, &width);  // moves `left` to where a unit begins
    window.left = left;
  }
  jpeg_skip_scanlines(&info_, static_cast<JDIMENSION>(window.crop.top));
  return true;
}

/// libjpeg-turbo decodes all of a file slowly that has restart markers. So it hears of them only where one is
/// due.
void JpegDecoder::restart_quickly() {
  if (restart_interval_ == 0) {
    return;
  }
  until_restart_ = restart_interval_;
  decode_unit_ =
      std::exchange(info_.entropy->decode_mcu, [](j_decompress_ptr info, JBLOCKROW* blocks) -> boolean {
        JpegDecoder& decoder = self(reinterpret_cast<j_common_ptr>(info));
        if (decoder.until_restart_ == 0) {
          info->restart_interval = 1;
          decoder.until_restart_ = decoder.restart_interval_;
        }
        --decoder.until_restart_;
        const boolean done = decoder.decode_unit_(info, blocks);
        info->restart_interval = 0;
        return done;
      });
}

bool JpegDecoder::read_rows(const Window& window) {
  if (setjmp(jump_) != 0) {
    return false;
  }
  const auto top = static_cast<JDIMENSION>(window.crop.top);
  const auto bottom = top + static_cast<JDIMENSION>(window.crop.height);
  while (info_.output_scanline < bottom) {
    jpeg_read_scanlines(&info_, rows_.data() + (info_.output_scanline - top), bottom - info_.output_scanline);
  }
  if (bottom == info_.output_height) {
    jpeg_finish_decompress(&info_);  // reads up to the end marker
  } else {
    jpeg_abort_decompress(&info_);
  }
  return true;
}

Pixels JpegDecoder::decode(const SamplePlan& plan, int channels) {
  const Rectangle stored = stored_part(plan.crop, header_.size, header_.orientation);
  eighths_ = choose_eighths(plan.crop.size(), plan.resized);
  Window window = place(stored);
  if (!start(needed(window), channels, window)) {
    fail();
  }
  const Rectangle& crop = window.crop;
  const std::int64_t stride = std::int64_t{info_.output_width} * info_.output_components;
  std::uint8_t* decoded = at_least(decoded_, crop.height * stride);
  rows_.resize(static_cast<std::size_t>(crop.height));
  for (std::int64_t y = 0; y < crop.height; ++y) {
    rows_[static_cast<std::size_t>(y)] = decoded + y * stride;
  }
  const bool inks = info_.out_color_space == JCS_CMYK, inverted = info_.saw_Adobe_marker;
  const std::int64_t columns = info_.output_width;
  if (!read_rows(window)) {
    fail();
  }
  if (!has_jpeg_end(bytes_, header_.scan_at)) {
    throw InputError("damaged JPEG: it is cut off, its end marker is missing; replace or remove it");
  }
  Pixels pixels{decoded, crop.height, columns, channels, columns * channels};
  if (inks) {
    pixels.data = at_least(rgb_, crop.height * columns * channels);
    cmyk_to_rgb(decoded, crop.height * columns, inverted, channels, rgb_.data());
  }
  pixels = pixels.part({0, crop.left - window.left, crop.height, crop.width});
  return header_.orientation == 1 ? pixels : turn_upright(pixels, header_.orientation, upright_);
}

}  // namespace millrace
