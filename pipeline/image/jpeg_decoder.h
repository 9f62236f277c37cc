#pragma once

#include <csetjmp>
#include <cstdio>
#include <span>
#include <vector>
// After cstdio, which it needs, and with its internals: the entropy decoder's function.
#define JPEG_INTERNALS
#include <jpeglib.h>

#include "pipeline/image/decode.h"
#include "pipeline/image/jpeg_header.h"

namespace millrace {

/// Decodes those parts of JPEGs that plans ask for. Reused: libjpeg keeps its memory, and so does this.
///
/// libjpeg reports errors by longjmp to the frame that called it; such frames hold no objects with
/// destructors.
class JpegDecoder {
 public:
  JpegDecoder();
  ~JpegDecoder();
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  /// See Decoder.
  Size2 open(std::span<const std::byte> bytes, const DecodeOptions& options);
  Pixels decode(const SamplePlan& plan, int channels);

 private:
  /// What of the shrunk image is decoded, in its pixels.
  struct Window {
    Size2 whole;
    Rectangle crop;
    std::int64_t left, right;  // columns: the crop's, and those that its border's colours depend on
  };
  Window place(const Rectangle& crop) const;
  /// The file, or one of those rows alone that `window` needs; it moves up by the rows left out.
  std::span<const std::byte> needed(Window& window);
  bool start(std::span<const std::byte> bytes, int channels, Window& window);
  void restart_quickly();
  bool read_rows(const Window& window);

  static JpegDecoder& self(j_common_ptr info) { return *static_cast<JpegDecoder*>(info->client_data); }
  [[noreturn]] void jump() { std::longjmp(jump_, 1); }
  [[noreturn]] void fail();

  jpeg_decompress_struct info_{};
  jpeg_error_mgr error_{};
  jpeg_progress_mgr progress_{};
  std::jmp_buf jump_;
  const char* reason_ = nullptr;  // of a failure that libjpeg has no message for
  decltype(jpeg_entropy_decoder::decode_mcu) decode_unit_ = nullptr;
  unsigned restart_interval_ = 0, until_restart_ = 0;  // in units

  std::span<const std::byte> bytes_;
  JpegHeader header_;
  int eighths_ = 8;  // of its stored size, at which the image is decoded
  std::vector<std::byte> cut_;
  std::vector<JSAMPROW> rows_;
  std::vector<std::uint8_t> decoded_, rgb_, upright_;
};

}  // namespace millrace
