#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace millrace {

/// Rewrites JPEGs without loss so that a restart marker ends every row of MCUs (8 or 16 rows of pixels): a
/// decoder can then skip the rows above and below a crop.
///
/// The coefficients, and so the pixels, stay the same bit for bit; EXIF and all other markers are kept.
/// Progressive files become baseline ones, Huffman tables are made anew. One per thread.
class RestartRows {
 public:
  RestartRows();
  ~RestartRows();
  RestartRows(const RestartRows&) = delete;
  RestartRows& operator=(const RestartRows&) = delete;

  /// @throws InputError when the JPEG is damaged, cut, too large or of a kind that cannot be rewritten.
  std::vector<std::byte> rewrite(std::span<const std::byte> jpeg);

 private:
  class Jpeg;
  std::unique_ptr<Jpeg> jpeg_;
};

}  // namespace millrace
