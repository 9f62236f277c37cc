#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "dataio/dataset.h"
#include "pipeline/image/decode_options.h"
#include "pipeline/image/transform.h"

namespace millrace {

/// u8 pixels in memory, rows `stride` bytes apart: the channels of a pixel together, or (planar) a plane
/// each.
struct Pixels {
  const std::uint8_t* data = nullptr;
  std::int64_t height = 0, width = 0;
  int channels = 0;
  std::int64_t stride = 0;
  std::int64_t plane = 0;  ///< Bytes from one channel's plane to the next; 0 where channels lie together.

  bool planar() const { return plane != 0; }
  const std::uint8_t* at(std::int64_t y, std::int64_t x) const {
    return data + y * stride + (planar() ? x : x * channels);
  }
  Pixels part(const Rectangle& r) const {
    return {at(r.top, r.left), r.height, r.width, channels, stride, plane};
  }
};

class JpegDecoder;

/// Turns a sample's bytes into pixels. One per thread: it keeps its decompressor and its memory.
class Decoder {
 public:
  Decoder();
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  /// Reads the header of `sample`, whose bytes must live until `decode`, and returns the image's size once
  /// upright. Encoded images become `channels` channels: grey ones are spread to three, CMYK is converted,
  /// alpha is dropped.
  /// @throws InputError when the bytes are no image of that encoding or beyond the limits, or raw ones are
  /// not of the size they claim.
  Size2 open(const Sample& sample, int channels, const DecodeOptions& options = {});
  /// The pixels of the plan's crop; they live until the next `open`, raw ones as long as the sample's bytes.
  /// Of a JPEG only the crop is decoded, and at a half, a quarter or an eighth of its size where the plan
  /// shrinks it that far; with a restart marker after each row of units, other rows are not even read.
  /// @throws InputError when the data are damaged or truncated; libjpeg's warnings count. Damage in parts of
  /// a JPEG that were not decoded goes unnoticed, but for a missing end.
  Pixels decode(const SamplePlan& plan);

 private:
  std::unique_ptr<JpegDecoder> jpeg_;
  Sample sample_;
  Pixels pixels_;                     // of a raw image, or one that `open` had to decode whole
  std::vector<std::uint8_t> buffer_;  // of the latter
};

}  // namespace millrace
