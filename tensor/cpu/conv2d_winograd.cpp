#include "tensor/cpu/conv2d_winograd.h"

#include <algorithm>
#include <array>
#include <vector>

#include "tensor/cpu/channels.h"
#include "tensor/cpu/conv2d_sizes.h"

// Results are computed in tiles of 2x2, from 4x4 pixels. Once both sides are transformed, a tile is one
// product for each of 16 places and each pair of channels: 16 matrix products, tiles by channels in by
// channels out. The weights' gradient takes the same way back: its matrix products sum over tiles. Tiles pass
// in chunks whose transforms stay in the L2 cache.
namespace millrace::cpu {

using namespace channels;

namespace {

constexpr std::int64_t kPlaces = 16;  // of a transformed tile
constexpr int kRows = 12;             // tiles of a block,
constexpr int kVecs = 2;              // vectors of channels out: together as many sums as fit in registers
constexpr int kSumRows = 8;           // for the weights' gradient: channels in, in the place of tiles
constexpr std::int64_t kColumns = kVecs * kLanes;  // of a panel of channels out
constexpr std::int64_t kBlock = kRows * kLanes;    // floats: a place of a block, for sixteen channels in
constexpr std::int64_t kSumPlace = 5;              // where a transformed tile of gradients holds their sum
constexpr std::int64_t kChunk = 160 * 1024;        // floats of transformed tiles

template <std::size_t kCount>
using Vecs = std::array<Vec, kCount>;

// The transforms along one axis: for a result y of two, y = out(in(x) * weight(w)); the other two are those
// of the gradients of y and w, the transposes of `out` and `weight`.
[[gnu::always_inline]] inline Vecs<4> transform_in(const Vecs<4>& x) {
  return {x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]};
}
[[gnu::always_inline]] inline Vecs<4> transform_weight(const Vecs<3>& w) {
  const Vec ends = w[0] + w[2];
  return {w[0], (ends + w[1]) * 0.5f, (ends - w[1]) * 0.5f, w[2]};
}
[[gnu::always_inline]] inline Vecs<2> transform_out(const Vecs<4>& m) {
  return {m[0] + m[1] + m[2], m[1] - m[2] - m[3]};
}
[[gnu::always_inline]] inline Vecs<4> transform_out_gradient(const Vecs<2>& y) {
  return {y[0], y[0] + y[1], y[0] - y[1], -y[1]};
}
[[gnu::always_inline]] inline Vecs<3> transform_weight_gradient(const Vecs<4>& m) {
  const Vec sum = (m[1] + m[2]) * 0.5f;
  return {m[0] + sum, (m[1] - m[2]) * 0.5f, sum + m[3]};
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

/// How many of the sixteen channels from `first` on there are.
std::int64_t lanes_from(std::int64_t first, std::int64_t channels) {
  return std::clamp<std::int64_t>(channels - first, 0, kLanes);
}

/// Those channels of a pixel; what is not there is 0.
Vec load_from(const float* pixel, std::int64_t first, std::int64_t channels) {
  const std::int64_t lanes = lanes_from(first, channels);
  return lanes == kLanes ? load(pixel + first) : lanes > 0 ? load(pixel + first, lanes) : Vec{};
}

/// A tile, from its pixels; `to` is its first sixteen channels at the first place.
[[gnu::noinline]] void transform_pixels(const std::array<const float*, 16>& pixel, std::int64_t channels,
                                        std::int64_t place, float* to) {
  for_each_group(channels, [&](std::int64_t channel, auto lanes) {
    Vecs<16> tile;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      tile[i] = load(pixel[i] + channel, lanes);
    }
    tile = both_ways(transform_in, tile);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      store(to + i * place, tile[i]);
    }
    to += kBlock;
  });
}

/// The other way: up to sixteen channels of a tile's results. What is null in `to` is none.
[[gnu::noinline]] void finish_results(const float* sums, std::int64_t place, Vec bias,
                                      const std::array<float*, 4>& to, std::int64_t channel,
                                      std::int64_t channels) {
  const std::int64_t lanes = lanes_from(channel, channels);
  Vecs<16> sum;
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    sum[i] = load(sums + i * place);
  }
  const Vecs<4> result = both_ways(transform_out, sum);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    if (to[i] != nullptr) {
      const Vec value = result[i] + bias;
      lanes == kLanes ? store(to[i] + channel, value) : store(to[i] + channel, value, lanes);
    }
  }
}

/// Up to sixteen channels of a tile of gradients of results.
[[gnu::noinline]] void transform_gradients(const std::array<const float*, 4>& from, std::int64_t channel,
                                           std::int64_t channels, std::int64_t place, float* to) {
  Vecs<4> result;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    result[i] = from[i] == nullptr ? Vec{} : load_from(from[i], channel, channels);
  }
  const Vecs<16> tile = both_ways(transform_out_gradient, result);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    store(to + i * place, tile[i]);
  }
}

std::int64_t whole_vectors(std::int64_t channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

/// The tiles of a batch of images, and the chunks in which they pass.
class Tiles {
 public:
  struct Options {
    std::int64_t out_channels;  ///< Of a tile on the other side, which shares the cache.
    std::int64_t least_blocks;  ///< Of a chunk, for each of which all weights, or their sums, are read.
  };
  Tiles(const Tensor& x, const Tensor& out, Size2 padding, Options options)
      : in_(image_sizes(x)),
        out_(image_sizes(out)),
        padding_(padding),
        down_((out_.height + 1) / 2),
        across_((out_.width + 1) / 2),
        count_(in_.images * down_ * across_),
        zeros_(static_cast<std::size_t>(in_.channels)) {
    const std::int64_t floats = kPlaces * (block() + kRows * options.out_channels);
    blocks_ = std::min(std::max(kChunk / floats, options.least_blocks), (count_ + kRows - 1) / kRows);
  }

  /// Tiles of a chunk.
  std::int64_t most() const { return blocks_ * kRows; }
  /// Floats from a block of transformed pixels to the next.
  std::int64_t block() const { return kRows * whole_vectors(in_.channels); }
  /// And from a place to the next: one cache line more than a multiple of a page, whose stores would share a
  /// set of the cache.
  std::int64_t place() const { return blocks_ * block() + kLanes; }

  /// Calls f(first tile, blocks) for each chunk.
  template <typename F>
  void for_each_chunk(F&& f) const {
    for (std::int64_t first = 0; first < count_; first += most()) {
      f(first, std::min(blocks_, (count_ - first + kRows - 1) / kRows));
    }
  }

  /// Transformed pixels: for each place and block, sixteen channels of each of its tiles in turn. Tiles that
  /// a block lacks are zeros.
  void transform(const float* x, std::int64_t first, std::int64_t blocks, float* to) const {
    for (std::int64_t t = 0; t < blocks * kRows; ++t) {
      std::array<const float*, 16> pixel;
      pixel.fill(zeros_.data());
      if (first + t < count_) {
        const Corner corner = corner_of(first + t);
        const std::int64_t top = 2 * corner.row - padding_.height, left = 2 * corner.column - padding_.width;
        for (std::int64_t h = std::max<std::int64_t>(-top, 0);
             h < std::min<std::int64_t>(in_.height - top, 4); ++h) {
          for (std::int64_t w = std::max<std::int64_t>(-left, 0);
               w < std::min<std::int64_t>(in_.width - left, 4); ++w) {
            pixel[h * 4 + w] =
                x + ((corner.image * in_.height + top + h) * in_.width + left + w) * in_.channels;
          }
        }
      }
      transform_pixels(pixel, in_.channels, place(), to + t / kRows * block() + t % kRows * kLanes);
    }
  }

  /// Calls f(tile of the chunk, four places in the result) for each tile; places that are not in the result
  /// are null.
  template <typename T, typename F>
  void for_each_result(T* out, std::int64_t first, std::int64_t blocks, F&& f) const {
    for (std::int64_t t = 0; t < blocks * kRows; ++t) {
      std::array<T*, 4> place = {};
      if (first + t < count_) {
        const Corner corner = corner_of(first + t);
        const std::int64_t h = 2 * corner.row, w = 2 * corner.column;
        for (std::int64_t i = 0; i < 4; ++i) {
          if (h + i / 2 < out_.height && w + i % 2 < out_.width) {
            place[i] =
                out + ((corner.image * out_.height + h + i / 2) * out_.width + w + i % 2) * out_.channels;
          }
        }
      }
      f(t, place);
    }
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
  std::vector<float> zeros_;            // a pixel of the padding
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

/// One block at one place: its tiles by the channels of a panel. (Inlined, it would share its registers.)
template <int kOut>
[[gnu::noinline]] void multiply(const float* x, const float* weight, std::int64_t channels, float* out) {
  Vec sum[kRows][kOut] = {};
  for (std::int64_t left = channels; left > 0; left -= kLanes, x += kBlock) {
    for (std::int64_t lane = 0; lane < std::min(left, kLanes); ++lane, weight += kOut * kLanes) {
      Vec w[kOut];
#pragma GCC unroll 2
      for (int o = 0; o < kOut; ++o) {
        w[o] = load(weight + o * kLanes);
      }
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
        for (int o = 0; o < kOut; ++o) {
          sum[r][o] += w[o] * x[r * kLanes + lane];
        }
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int o = 0; o < kOut; ++o) {
      store(out + (r * kOut + o) * kLanes, sum[r][o]);
    }
  }
}

/// Adds to `total`, kSumRows channels in by those of a panel, the sums over the tiles of blocks that lie
/// `step` apart: sums of a chunk first, then over chunks, are closer than one long sum.
template <int kOut>
[[gnu::noinline]] void add_products(const float* x, const float* grad, std::int64_t blocks, std::int64_t step,
                                    float* total) {
  Vec sum[kSumRows][kOut] = {};
  for (std::int64_t block = 0; block < blocks; ++block, x += step) {
    for (std::int64_t r = 0; r < kRows; ++r, grad += kOut * kLanes) {
      Vec g[kOut];
#pragma GCC unroll 2
      for (int o = 0; o < kOut; ++o) {
        g[o] = load(grad + o * kLanes);
      }
#pragma GCC unroll 8
      for (int i = 0; i < kSumRows; ++i) {
#pragma GCC unroll 2
        for (int o = 0; o < kOut; ++o) {
          sum[i][o] += g[o] * x[r * kLanes + i];
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kSumRows; ++i) {
#pragma GCC unroll 2
    for (int o = 0; o < kOut; ++o) {
      float* const to = total + (i * kOut + o) * kLanes;
      store(to, load(to) + sum[i][o]);
    }
  }
}

/// Adds to `total` the sums over the tiles of neighbouring blocks, for the channels of a panel.
template <int kOut>
void add_tiles(const float* grad, std::int64_t blocks, float* total) {
  for (std::int64_t v = 0; v < kOut; ++v) {
    Vec sum{};
    for (std::int64_t tile = 0; tile < blocks * kRows; ++tile) {
      sum += load(grad + (tile * kOut + v) * kLanes);
    }
    store(total + v * kLanes, load(total + v * kLanes) + sum);
  }
}

}  // namespace

bool winograd_is_faster(const Shape& weight, const Conv2dParams& params, const Tensor& out) {
#if defined(__AVX512F__)
  constexpr bool kHasRegisters = true;
#else
  constexpr bool kHasRegisters = false;
#endif
  const bool is_plain = params.stride == Size2(1) && params.dilation == Size2(1) && params.groups == 1;
  if (!kHasRegisters || out.dtype() != DType::f32 || !is_plain || weight[2] != 3 || weight[3] != 3) {
    return false;
  }
  const auto [images, channels, height, width] = image_sizes(out);
  const std::int64_t tiles = ((height + 1) / 2) * ((width + 1) / 2);
  // Odd sizes end with tiles of which a half is not used.
  const bool fills_tiles = height >= 4 && width >= 4 && 3 * tiles <= height * width;
  return fills_tiles && images * tiles >= 48 && std::min(weight[0], weight[1]) >= 8 &&
         weight[0] * weight[1] >= 512;
}

Tensor winograd_weights(const Tensor& weight, bool turned) {
  const std::int64_t rows = weight.size(0), columns = weight.size(1);
  const std::int64_t out = turned ? columns : rows, in = turned ? rows : columns;
  const std::int64_t out_step = turned ? 9 : columns * 9, in_step = turned ? columns * 9 : 9;
  Tensor result = empty({kPlaces * in * whole_vectors(out)});
  float* to = result.data<float>();
  for_each_panel(out, [&]<int kOut>(std::int64_t panel) {
    for (std::int64_t i = 0; i < in; ++i) {
      for (std::int64_t v = 0; v < kOut; ++v) {
        const std::int64_t first = panel + v * kLanes, lanes = lanes_from(first, out);
        const float* const from = weight.data<float>() + i * in_step + first * out_step;
        Vecs<9> taps = {};
        for (std::int64_t lane = 0; lane < lanes; ++lane) {
          for (std::int64_t tap = 0; tap < 9; ++tap) {
            taps[tap][lane] = from[lane * out_step + (turned ? 8 - tap : tap)];
          }
        }
        const Vecs<16> tile = both_ways(transform_weight, taps);
        for (std::int64_t place = 0; place < kPlaces; ++place) {
          store(to + ((place * in + i) * kOut + v) * kLanes, tile[place]);
        }
      }
    }
    to += kPlaces * in * kOut * kLanes;
  });
  return result;
}

void winograd_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, Size2 padding, Tensor& out) {
  const std::int64_t in_channels = x.size(1), out_channels = out.size(1);
  const Tiles tiles(x, out, padding, {.out_channels = kColumns, .least_blocks = 2});
  const std::int64_t sums_place = tiles.most() * kColumns + kLanes;
  Tensor transformed = empty({kPlaces * tiles.place()}), sums = empty({kPlaces * sums_place});
  const float* const pixels = transformed.data<float>();
  float* const products = sums.data<float>();
  tiles.for_each_chunk([&](std::int64_t first, std::int64_t blocks) {
    tiles.transform(x.data<float>(), first, blocks, transformed.data<float>());
    const float* from = weight.data<float>();
    for_each_panel(out_channels, [&]<int kOut>(std::int64_t panel) {
      for (std::int64_t place = 0; place < kPlaces; ++place, from += in_channels * kOut * kLanes) {
        for (std::int64_t block = 0; block < blocks; ++block) {
          multiply<kOut>(pixels + place * tiles.place() + block * tiles.block(), from, in_channels,
                         products + place * sums_place + block * kRows * kOut * kLanes);
        }
      }
      std::array<Vec, kOut> offset = {};
      for (std::int64_t v = 0; v < kOut && bias.defined(); ++v) {
        const std::int64_t channel = panel + v * kLanes;
        offset[v] = load_from(bias.data<float>(), channel, out_channels);
      }
      tiles.for_each_result(out.data<float>(), first, blocks,
                            [&](std::int64_t tile, const std::array<float*, 4>& to) {
                              for (std::int64_t v = 0; v < kOut; ++v) {
                                finish_results(products + (tile * kOut + v) * kLanes, sums_place, offset[v],
                                               to, panel + v * kLanes, out_channels);
                              }
                            });
    });
  });
}

void winograd_backward_weight(const Tensor& x, const Tensor& grad, Size2 padding, Tensor& grad_weight,
                              Tensor& grad_bias) {
  const std::int64_t out = grad_weight.size(0), in = grad_weight.size(1), columns = whole_vectors(out);
  const std::int64_t rows = (in + kSumRows - 1) / kSumRows * kSumRows;
  const Tiles tiles(x, grad, padding, {.out_channels = columns, .least_blocks = 8});
  const std::int64_t grad_place = tiles.most() * columns + kLanes;
  Tensor transformed = empty({kPlaces * tiles.place()}), gradient = empty({kPlaces * grad_place});
  const Tensor totals = zeros({kPlaces * rows * columns}), bias_totals = zeros({columns});
  const float* const pixels = transformed.data<float>();
  float* const grads = gradient.data<float>();
  tiles.for_each_chunk([&](std::int64_t first, std::int64_t blocks) {
    tiles.transform(x.data<float>(), first, blocks, transformed.data<float>());
    tiles.for_each_result<const float>(
        grad.data<float>(), first, blocks, [&](std::int64_t tile, const std::array<const float*, 4>& from) {
          for_each_panel(out, [&]<int kOut>(std::int64_t panel) {
            for (std::int64_t v = 0; v < kOut; ++v) {
              transform_gradients(from, panel + v * kLanes, out, grad_place,
                                  grads + panel * tiles.most() + (tile * kOut + v) * kLanes);
            }
          });
        });
    if (grad_bias.defined()) {
      for_each_panel(out, [&]<int kOut>(std::int64_t panel) {
        add_tiles<kOut>(grads + kSumPlace * grad_place + panel * tiles.most(), blocks,
                        bias_totals.data<float>() + panel);
      });
    }
    float* total = totals.data<float>();
    for (std::int64_t place = 0; place < kPlaces; ++place) {
      for_each_panel(out, [&]<int kOut>(std::int64_t panel) {
        for (std::int64_t i = 0; i < rows; i += kSumRows, total += kSumRows * kOut * kLanes) {
          add_products<kOut>(pixels + place * tiles.place() + i / kLanes * kBlock + i % kLanes,
                             grads + place * grad_place + panel * tiles.most(), blocks, tiles.block(), total);
        }
      });
    }
  });
  if (grad_bias.defined()) {
    std::copy_n(bias_totals.data<float>(), out, grad_bias.data<float>());
  }
  const float* total = totals.data<float>();
  for_each_panel(out, [&]<int kOut>(std::int64_t panel) {
    for (std::int64_t i = 0; i < in; ++i) {
      for (std::int64_t v = 0; v < kOut; ++v) {
        Vecs<16> sum;
        for (std::int64_t place = 0; place < kPlaces; ++place) {
          sum[place] = load(total + place * rows * columns + (i * kOut + v) * kLanes);
        }
        const Vecs<9> taps = both_ways(transform_weight_gradient, sum);
        const std::int64_t first = panel + v * kLanes;
        float* const to = grad_weight.data<float>() + (first * in + i) * 9;
        for (std::int64_t lane = 0; lane < lanes_from(first, out); ++lane) {
          for (std::int64_t tap = 0; tap < 9; ++tap) {
            to[lane * in * 9 + tap] = taps[tap][lane];
          }
        }
      }
    }
    total += rows * kOut * kLanes;
  });
}

}  // namespace millrace::cpu
