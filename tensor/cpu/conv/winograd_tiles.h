#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "tensor/cpu/conv/sizes.h"
#include "tensor/cpu/words.h"

/// What the passes of Winograd's convolution share. Results are computed in tiles of 2x2, from 4x4 pixels.
/// Once both sides are transformed, a tile is one product for each of 16 places and each pair of channels: 16
/// matrix products, tiles by channels in by channels out. Tiles pass in chunks whose transforms stay in the
/// L2 cache, unless channels are many.
namespace millrace::cpu::winograd {

using namespace channels;

inline constexpr std::int64_t kPlaces = 16;  // of a transformed tile
inline constexpr int kRows = 12;             // tiles of a block,
inline constexpr int kVecs = 2;  // vectors of channels out: together as many sums as fit in registers
inline constexpr std::int64_t kColumns = kVecs * kLanes;  // of a panel of channels out
inline constexpr std::int64_t kBlock =
    kRows * kLanes;  // words: a place of a block, for sixteen words of each tile
inline constexpr std::int64_t kChunk = 160 * 1024;  // words of transformed tiles

template <std::size_t kCount>
using Vecs = std::array<Vec, kCount>;

/// Along one axis, for a result y of two: y = out(in(x) * weight(w)).
[[gnu::always_inline]] inline Vecs<4> transform_in(const Vecs<4>& x) {
  return {x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]};
}

/// Along rows, then columns.
template <std::size_t kIn, std::size_t kOut>
[[gnu::always_inline]] inline Vecs<kOut * kOut> both_ways(Vecs<kOut> (*transform)(const Vecs<kIn>&),
                                                          const Vecs<kIn * kIn>& from) {
  Vecs<kIn * kOut> half;
#pragma GCC unroll 4
  for (std::size_t row = 0; row < kIn; ++row) {
    Vecs<kIn> line;
    std::copy_n(from.begin() + row * kIn, kIn, line.begin());
    std::ranges::copy(transform(line), half.begin() + row * kOut);
  }
  Vecs<kOut * kOut> to;
#pragma GCC unroll 4
  for (std::size_t column = 0; column < kOut; ++column) {
    Vecs<kIn> line;
#pragma GCC unroll 4
    for (std::size_t row = 0; row < kIn; ++row) {
      line[row] = half[row * kOut + column];
    }
    const Vecs<kOut> done = transform(line);
#pragma GCC unroll 4
    for (std::size_t row = 0; row < kOut; ++row) {
      to[row * kOut + column] = done[row];
    }
  }
  return to;
}

/// How many there are of the sixteen channels from `first` on.
inline std::int64_t lanes_from(std::int64_t first, std::int64_t channels) {
  return std::min(channels - first, kLanes);
}

/// Those channels of a pixel; what is not there is 0.
template <typename T>
Vec load_from(const T* pixel, std::int64_t first, std::int64_t channels) {
  const std::int64_t lanes = lanes_from(first, channels);
  return lanes == kLanes ? load(pixel + first) : load(pixel + first, lanes);
}

template <typename T>
using Pixels = std::array<const T*, 16>;  // of a tile

/// A tile from its pixels, channels in the order of memory. `to` is its first word at the first place.
template <typename T>
[[gnu::noinline]] inline void transform_pixels(const Pixels<T>& pixel, std::int64_t channels,
                                               std::int64_t place, float* to) {
  constexpr std::int64_t kLine = kLanes * kPerWord<T>;  // channels
  for_each_group(channels, [&](std::int64_t channel, auto lanes) {
    Vecs<16> tile;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      tile[i] = load(pixel[i] + channel, lanes);
    }
    tile = both_ways(transform_in, tile);
    T* const at = reinterpret_cast<T*>(to + channel / kLine * kBlock) + channel % kLine;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      store(at + i * place * kPerWord<T>, tile[i]);
    }
  });
}

/// Channels (or words of them), and those that fill up the last vector.
inline std::int64_t whole_vectors(std::int64_t channels) { return (channels + kLanes - 1) / kLanes * kLanes; }
/// From a place to the next, for `words` at each: an odd number of cache lines, as stores to all places at
/// once would share a set of the cache otherwise.
inline std::int64_t place_step(std::int64_t words) { return words + kLanes; }

/// The tiles of a batch of images, and the chunks in which they pass. Images are an `Images` or the like.
template <typename T>
class Tiles {
 public:
  struct Options {
    std::int64_t out_words;     ///< Of a tile at one place, on the other side, which shares the cache.
    std::int64_t least_blocks;  ///< Of a chunk: each chunk reads all weights, or all their sums.
  };
  Tiles(const ImageSizes& in, const ImageSizes& out, Size2 padding, Options options)
      : in_(in),
        out_(out),
        padding_(padding),
        down_((out_.height + 1) / 2),
        across_((out_.width + 1) / 2),
        count_(in_.images * down_ * across_),
        zeros_(static_cast<std::size_t>(in_.channels)) {
    const std::int64_t words = kPlaces * kRows * (in_.channels / kPerWord<T> + options.out_words);
    blocks_ = std::min(std::max(kChunk / words, options.least_blocks), (count_ + kRows - 1) / kRows);
  }

  /// Of a chunk.
  std::int64_t blocks() const { return blocks_; }

  /// Calls f(first tile, blocks) for each chunk.
  template <typename F>
  void for_each_chunk(F&& f) const {
    for (std::int64_t first = 0; first < count_; first += blocks_ * kRows) {
      f(first, std::min(blocks_, (count_ - first + kRows - 1) / kRows));
    }
  }

  /// Those of one tile, to be read before the next is asked for. Pixels of the padding, and of tiles that a
  /// block lacks, are zeros.
  template <typename Source>
  Pixels<T> pixels(Source& x, std::int64_t tile) const {
    Pixels<T> pixel;
    pixel.fill(zeros_.data());
    if (tile < count_) {
      const Corner corner = corner_of(tile);
      const T* const image = x.image(corner.image);
      const std::int64_t top = 2 * corner.row - padding_.height, left = 2 * corner.column - padding_.width;
      for (std::int64_t h = std::max<std::int64_t>(-top, 0); h < std::min<std::int64_t>(in_.height - top, 4);
           ++h) {
        for (std::int64_t w = std::max<std::int64_t>(-left, 0);
             w < std::min<std::int64_t>(in_.width - left, 4); ++w) {
          pixel[h * 4 + w] = image + ((top + h) * in_.width + left + w) * in_.channels;
        }
      }
    }
    return pixel;
  }

  /// The four places of a tile's result; those that are not in it are null.
  template <typename Source>
  auto results(Source& out, std::int64_t tile) const {
    std::array<decltype(out.image(0)), 4> place = {};
    if (tile < count_) {
      const Corner corner = corner_of(tile);
      const auto image = out.image(corner.image);
      const std::int64_t h = 2 * corner.row, w = 2 * corner.column;
      for (std::int64_t i = 0; i < 4; ++i) {
        if (h + i / 2 < out_.height && w + i % 2 < out_.width) {
          place[i] = image + ((h + i / 2) * out_.width + w + i % 2) * out_.channels;
        }
      }
    }
    return place;
  }

 private:
  struct Corner {
    std::int64_t image, row, column;  // in tiles
  };
  Corner corner_of(std::int64_t tile) const {
    return {tile / (down_ * across_), tile / across_ % down_, tile % across_};
  }

  ImageSizes in_, out_;
  Size2 padding_;
  std::int64_t down_, across_, count_;  // tiles
  std::int64_t blocks_ = 0;             // of a chunk
  std::vector<T> zeros_;                // a pixel of the padding
};

/// Calls f<vectors>(first channel) for each panel of channels out.
template <typename F>
void for_each_panel(std::int64_t channels, F&& f) {
  std::int64_t o = 0;
  for (; o + kColumns <= channels; o += kColumns) {
    f.template operator()<kVecs>(o);
  }
  if (channels - o > kLanes) {
    f.template operator()<kVecs>(o);
  } else if (o < channels) {
    f.template operator()<1>(o);
  }
}

}  // namespace millrace::cpu::winograd
