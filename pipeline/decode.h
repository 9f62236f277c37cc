#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "dataio/dataset.h"
#include "pipeline/transform.h"

namespace millrace {

/// u8 pixels in memory: height x width x channels without gaps, or (planar) channels x height x width.
struct Pixels {
  const std::uint8_t* data = nullptr;
  std::int64_t height = 0, width = 0;
  int channels = 0;
  bool planar = false;
};

/// Turns a sample's bytes into pixels. One per thread: it keeps its decompressor and its memory.
class Decoder {
 public:
  Decoder();
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  /// Reads the header of `sample`, whose bytes must live until `decode`. Encoded images become `channels`
  /// channels: grey ones are spread to three, CMYK is converted, alpha is dropped.
  /// @throws InputError when the bytes are no image of that encoding, or raw ones are not of the size they
  /// claim.
  Size2 open(const Sample& sample, int channels);
  /// The pixels of what was opened; they live until the next `open`, raw ones as long as the sample's bytes.
  /// A JPEG that `plan` shrinks to half or less is decoded at a half, a quarter or an eighth of its size.
  /// @throws InputError when the data are damaged or truncated; libjpeg's warnings count.
  Pixels decode(const SamplePlan& plan);

 private:
  class Jpeg;
  std::unique_ptr<Jpeg> jpeg_;
  Sample sample_;
  Pixels pixels_;                     // of a raw image, or one that `open` had to decode whole
  std::vector<std::uint8_t> buffer_;  // decoded pixels
};

/// PNG and whatever else OpenCV's imgcodecs reads, into `buffer` as height x width x channels (RGB).
/// @throws InputError when it cannot be read, or in a build without imgcodecs.
Pixels decode_other(std::span<const std::byte> bytes, int channels, std::vector<std::uint8_t>& buffer);

}  // namespace millrace
