#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tensor/kernels/options.h"

namespace millrace {

/// More scans are refused: each goes over all blocks of the image. Real ones have about ten.
inline constexpr int kMostJpegScans = 100;

/// What the markers in front of a JPEG's first scan say, as far as planning needs it; the decoder reads them
/// again and is stricter.
struct JpegHeader {
  Size2 size = 0;           ///< As stored.
  Size2 unit = 8;           ///< Pixels of a coded unit: 8 or 16 a side, mostly.
  int orientation = 1;      ///< EXIF's, 1 to 8; 1 is upright and also stands for none.
  bool sequential = false;  ///< Huffman-coded in one scan that holds all components.
  bool arithmetic = false;
  int restart_interval = 0;   ///< In units; 0 without restart markers.
  std::size_t height_at = 0;  ///< Where in the file the two bytes of the height stand.
  std::size_t scan_at = 0;    ///< Where the first scan's coded bytes begin.

  std::int64_t unit_rows() const { return (size.height + unit.height - 1) / unit.height; }
  /// Whether each row of units ends in a restart marker, so that rows can be decoded without those above.
  bool has_restart_rows() const {
    return sequential && restart_interval == (size.width + unit.width - 1) / unit.width;
  }
};

/// @throws InputError when the markers lead astray.
JpegHeader read_jpeg_header(std::span<const std::byte> bytes);

/// Against memory for pixels that cannot be there.
/// @throws InputError when there are more than `max_pixels`, or more than a file of so many bytes can hold.
void check_jpeg_size(const JpegHeader& header, std::size_t bytes, std::int64_t max_pixels);

/// Whether an end marker follows on the coded bytes at `begin`. Takes no time where it comes last, as it
/// should.
bool has_jpeg_end(std::span<const std::byte> bytes, std::size_t begin);

/// Writes a JPEG of rows of units [first, last) alone to `out`, without decoding anything.
/// @param header of `bytes`, with restart rows; first < last <= unit_rows().
/// @returns an empty span when the restart markers are not where the header says.
std::span<const std::byte> cut_rows(std::span<const std::byte> bytes, const JpegHeader& header,
                                    std::int64_t first, std::int64_t last, std::vector<std::byte>& out);

}  // namespace millrace
