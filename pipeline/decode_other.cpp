#include <opencv2/core.hpp>

#include "pipeline/decode.h"
#include "pipeline/png_check.h"
#include "tensor/config.h"
#if __has_include(<opencv2/imgcodecs.hpp>)
#include <opencv2/imgcodecs.hpp>
#endif

namespace millrace {
namespace {

#if __has_include(<opencv2/imgcodecs.hpp>)
cv::Mat read(const cv::Mat& bytes, int channels, bool exif_orientation) {
  const int color = channels == 1 ? cv::IMREAD_GRAYSCALE : cv::IMREAD_COLOR;
  try {
    return cv::imdecode(bytes, exif_orientation ? color : color | cv::IMREAD_IGNORE_ORIENTATION);
  } catch (const cv::Exception& error) {
    throw InputError("cannot be decoded: {}", error.err);
  }
}
#else
cv::Mat read(const cv::Mat&, int, bool) { return {}; }
#endif

}  // namespace

Pixels decode_other(std::span<const std::byte> bytes, int channels, const DecodeOptions& options,
                    std::vector<std::uint8_t>& buffer) {
  if constexpr (!kWithImgcodecs) {
    throw InputError(
        "is not a JPEG, and this build reads nothing else (MILLRACE_IMGCODECS=OFF); convert it to JPEG or "
        "build with -DMILLRACE_IMGCODECS=ON");
  } else {
    // Nothing else: what OpenCV itself does not know it hands to GDAL, some of whose formats name files and
    // addresses to read.
    if (!png_is_whole(bytes)) {
      throw InputError("is neither a JPEG nor a whole PNG file; convert, replace or remove it");
    }
    if (const Size2 size = png_size(bytes); size.height > options.max_pixels / size.width) {
      throw InputError("PNG of {} x {} (height x width) is larger than {} pixels; shrink or remove it",
                       size.height, size.width, options.max_pixels);
    }
    // OpenCV does not write through this pointer.
    const cv::Mat view(1, static_cast<int>(bytes.size()), CV_8U, const_cast<std::byte*>(bytes.data()));
    const cv::Mat image = read(view, channels, options.exif_orientation);
    if (image.empty()) {
      throw InputError("is a PNG file that OpenCV cannot read, or damaged; replace or remove it");
    }
    const auto pixels = static_cast<std::size_t>(image.rows) * static_cast<std::size_t>(image.cols);
    buffer.resize(pixels * static_cast<std::size_t>(channels));
    const std::uint8_t* source = image.data;  // imdecode's result has no gaps; its colours are B, G, R
    if (channels == 1) {
      std::copy_n(source, pixels, buffer.data());
    } else {
      for (std::size_t i = 0; i < pixels; ++i) {
        for (std::size_t c = 0; c < 3; ++c) {
          buffer[3 * i + c] = source[3 * i + 2 - c];
        }
      }
    }
    return {buffer.data(), image.rows, image.cols, channels, std::int64_t{image.cols} * channels};
  }
}

}  // namespace millrace
