#pragma once

#include <cstdio>
#include <cstdlib>
#include <vector>
// After cstdio, which it needs.
#include <jpeglib.h>

#include "pipeline/image/decode.h"

namespace millrace {

/// How tests make JPEGs.
struct JpegOptions {
  J_COLOR_SPACE space = JCS_RGB;
  int horizontal = 2, vertical = 2;  ///< Luma samples to one of chroma.
  bool progressive = false;
  bool separate_scans = false;  ///< One for each of three components.
  bool restart_rows = false;
  unsigned restart_units = 0;  ///< Else a restart marker after so many units.
  int quality = 100;
  int orientation = 0;  ///< EXIF's; 0 writes none.
};

inline int channels_of(J_COLOR_SPACE space) { return space == JCS_GRAYSCALE ? 1 : space == JCS_RGB ? 3 : 4; }

inline std::vector<std::byte> encode_jpeg(const std::vector<std::uint8_t>& pixels, int height, int width,
                                          const JpegOptions& options) {
  jpeg_compress_struct info{};
  jpeg_error_mgr error{};
  info.err = jpeg_std_error(&error);
  jpeg_create_compress(&info);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &memory, &size);
  info.image_height = static_cast<JDIMENSION>(height);
  info.image_width = static_cast<JDIMENSION>(width);
  info.input_components = channels_of(options.space);
  info.in_color_space = options.space;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, options.quality, TRUE);
  info.comp_info[0].h_samp_factor = options.horizontal;
  info.comp_info[0].v_samp_factor = options.vertical;
  info.restart_in_rows = options.restart_rows ? 1 : 0;
  info.restart_interval = options.restart_units;
  if (options.progressive) {
    jpeg_simple_progression(&info);
  }
  const jpeg_scan_info scans[] = {{1, {0}, 0, 63, 0, 0}, {1, {1}, 0, 63, 0, 0}, {1, {2}, 0, 63, 0, 0}};
  if (options.separate_scans) {
    info.scan_info = scans;
    info.num_scans = 3;
  }
  jpeg_start_compress(&info, TRUE);
  if (options.orientation != 0) {  // one entry, in Motorola's order: tag 0x112, a short
    const auto value = static_cast<unsigned char>(options.orientation);
    const unsigned char exif[] = {'E', 'x',  'i', 'f', 0, 0, 'M', 'M', 0, 42,    0, 0, 0, 8, 0, 1,
                                  1,   0x12, 0,   3,   0, 0, 0,   1,   0, value, 0, 0, 0, 0, 0, 0};
    jpeg_write_marker(&info, JPEG_APP0 + 1, exif, sizeof exif);
  }
  const auto stride = static_cast<unsigned>(width * info.input_components);
  while (info.next_scanline < info.image_height) {
    auto* row = const_cast<JSAMPROW>(pixels.data() + info.next_scanline * stride);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  const auto* first = reinterpret_cast<const std::byte*>(memory);
  std::vector<std::byte> bytes(first, first + size);
  std::free(memory);
  return bytes;
}

}  // namespace millrace
