#include "pipeline/image/decode.h"

#include "pipeline/image/decode_png.h"
#include "pipeline/image/jpeg_decoder.h"

namespace millrace {
namespace {

void check_encoded(const Sample& sample, int channels, const DecodeOptions& options) {
  if (channels != 1 && channels != 3) {
    throw InputError("encoded images have 1 or 3 channels, the data set asks for {}", channels);
  }
  if (static_cast<std::int64_t>(sample.bytes.size()) > options.max_bytes) {
    throw InputError("image of {} bytes, expected at most {}; shrink or remove it", sample.bytes.size(),
                     options.max_bytes);
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
  const auto* data = reinterpret_cast<const std::uint8_t*>(sample.bytes.data());
  return sample.encoding == Encoding::raw_chw ? Pixels{data, height, width, channels, width, height * width}
                                              : Pixels{data, height, width, channels, width * channels};
}

}  // namespace

Decoder::Decoder() : jpeg_(std::make_unique<JpegDecoder>()) {}
Decoder::~Decoder() = default;

Size2 Decoder::open(const Sample& sample, int channels, const DecodeOptions& options) {
  sample_ = sample;
  sample_.channels = channels;
  switch (sample.encoding) {
    case Encoding::raw_hwc:
    case Encoding::raw_chw:
      pixels_ = raw_pixels(sample, channels);
      break;
    case Encoding::jpeg:
      check_encoded(sample, channels, options);
      return jpeg_->open(sample.bytes, options);
    case Encoding::png:
      check_encoded(sample, channels, options);
      pixels_ = decode_png(sample.bytes, channels, options, buffer_);
      break;
  }
  return {pixels_.height, pixels_.width};
}

Pixels Decoder::decode(const SamplePlan& plan) {
  return sample_.encoding == Encoding::jpeg ? jpeg_->decode(plan, sample_.channels) : pixels_.part(plan.crop);
}

}  // namespace millrace
