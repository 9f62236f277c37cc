#include "tensor/cpu/conv/winograd.h"

#include <utility>

#include "tensor/cpu/conv/unpooled.h"
#include "tensor/cpu/conv/winograd_tiles.h"
#include "tensor/cpu/visit_float.h"

namespace millrace::cpu {

using namespace winograd;

namespace {

[[gnu::always_inline]] inline Vecs<4> transform_weight(const Vecs<3>& w) {
  const Vec ends = w[0] + w[2];
  return {w[0], (ends + w[1]) * 0.5f, (ends - w[1]) * 0.5f, w[2]};
}
[[gnu::always_inline]] inline Vecs<2> transform_out(const Vecs<4>& m) {
  return {m[0] + m[1] + m[2], m[1] - m[2] - m[3]};
}

/// Of a tile, at up to sixteen channels.
[[gnu::always_inline]] inline Vecs<4> results_of(const float* sums, std::int64_t place, Vec bias) {
  Vecs<16> sum;
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    sum[i] = load(sums + i * place);
  }
  Vecs<4> result = both_ways(transform_out, sum);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    result[i] += bias;
  }
  return result;
}

/// Calls f with `lanes`, or with `All` where those are all.
template <typename F>
void with_lanes(std::int64_t lanes, F&& f) {
  lanes == kLanes ? f(All{}) : f(lanes);
}

/// Where a tile's results go, as they are: to four pixels. What is null is none.
template <typename T>
struct Whole {
  std::array<T*, 4> to;

  [[gnu::noinline]] void take(const float* sums, std::int64_t place, Vec bias, std::int64_t channel,
                              std::int64_t lanes) const {
    const Vecs<4> result = results_of(sums, place, bias);
    with_lanes(lanes, [&](auto all_or_some) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        if (to[i] != nullptr) {
          store(to[i] + channel, result[i], all_or_some);
        }
      }
    });
  }
};

/// The same with a max pooling behind, of which the tile is a window: the largest of it, and which that was.
template <typename T>
struct Pooled {
  T* to;  // null for tiles that a block lacks
  std::uint8_t* index;

  [[gnu::noinline]] void take(const float* sums, std::int64_t place, Vec bias, std::int64_t channel,
                              std::int64_t lanes) const {
    if (to == nullptr) {
      return;
    }
    const Vecs<4> result = results_of(sums, place, bias);
    Vec best = rounded<T>(result[0]);
    IntVec winner{};
#pragma GCC unroll 3
    for (int i = 1; i < 4; ++i) {
      take_larger(rounded<T>(result[i]), i, best, winner);
    }
    with_lanes(lanes, [&](auto all_or_some) {
      store(to + channel, best, all_or_some);
      store(index + channel, winner, all_or_some);
    });
  }
};

/// One block at one place: its tiles by the channels of a panel. (Inlined, it would share its registers.)
template <typename T, int kOut>
[[gnu::noinline]] void multiply(const float* x, const float* weight, std::int64_t words, float* out) {
  Vec sum[kRows][kOut] = {};
  for (std::int64_t left = words; left > 0; left -= kLanes, x += kBlock) {
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
          sum[r][o] = multiply_add<T>(sum[r][o], w[o], x[r * kLanes + lane]);
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

template <typename T>
Tensor transformed_weights(const Tensor& weight, bool turned) {
  const std::int64_t rows = weight.size(0), columns = weight.size(1);
  const std::int64_t out = turned ? columns : rows, in = turned ? rows : columns;
  const std::int64_t out_step = turned ? 9 : columns * 9, in_step = turned ? columns * 9 : 9;
  const std::int64_t words = words_of<T>(in);
  Tensor result = empty({kPlaces * words * whole_vectors(out)});
  float* to = result.data<float>();
  for_each_panel(out, [&]<int kOut>(std::int64_t panel) {
    for (std::int64_t word = 0; word < words; ++word) {
      for (std::int64_t v = 0; v < kOut; ++v) {
        const std::int64_t first = panel + v * kLanes, lanes = lanes_from(first, out);
        std::array<Vecs<16>, static_cast<std::size_t>(kPerWord<T>)> tile;
        for (std::int64_t i = 0; i < kPerWord<T>; ++i) {
          const std::int64_t channel = word * kPerWord<T> + i;
          Vecs<9> taps = {};
          for (std::int64_t lane = 0; lane < lanes && channel < in; ++lane) {
            const float* const from = weight.data<float>() + channel * in_step + (first + lane) * out_step;
            for (std::int64_t tap = 0; tap < 9; ++tap) {
              taps[tap][lane] = from[turned ? 8 - tap : tap];
            }
          }
          tile[i] = both_ways(transform_weight, taps);
        }
        for (std::int64_t place = 0; place < kPlaces; ++place) {
          float* const at = to + ((place * words + word) * kOut + v) * kLanes;
          if constexpr (kPerWord<T> == 2) {
            store(at, pairs(tile[0][place], tile[1][place]));
          } else {
            store(at, tile[0][place]);
          }
        }
      }
    }
    to += kPlaces * words * kOut * kLanes;
  });
  return result;
}

/// `place_of(tiles, tile)`: where the results of a tile go, a `Whole` or `Pooled`.
template <typename T, typename Source, typename PlaceOf>
void forward(Source x, const ImageSizes& in, const Tensor& weight, const Tensor& bias, Size2 padding,
             const ImageSizes& out, PlaceOf&& place_of) {
  const std::int64_t words = words_of<T>(in.channels);
  const Tiles<T> tiles(in, out, padding, {.out_words = kColumns, .least_blocks = 2});
  const std::int64_t block = kRows * whole_vectors(words), place = place_step(tiles.blocks() * block);
  const std::int64_t sums_place = place_step(tiles.blocks() * kRows * kColumns);
  Tensor pixels = empty({kPlaces * place}), sums = empty({kPlaces * sums_place});
  float* const transformed = pixels.data<float>();
  float* const products = sums.data<float>();
  tiles.for_each_chunk([&](std::int64_t first, std::int64_t blocks) {
    for (std::int64_t t = 0; t < blocks * kRows; ++t) {
      transform_pixels<T>(tiles.pixels(x, first + t), in.channels, place,
                          transformed + t / kRows * block + t % kRows * kLanes);
    }
    const float* from = weight.data<float>();
    for_each_panel(out.channels, [&]<int kOut>(std::int64_t panel) {
      for (std::int64_t p = 0; p < kPlaces; ++p, from += words * kOut * kLanes) {
        for (std::int64_t b = 0; b < blocks; ++b) {
          multiply<T, kOut>(transformed + p * place + b * block, from, words,
                            products + p * sums_place + b * kRows * kOut * kLanes);
        }
      }
      std::array<Vec, kOut> offset = {};
      for (std::int64_t v = 0; v < kOut && bias.defined(); ++v) {
        offset[v] = load_from(bias.data<float>(), panel + v * kLanes, out.channels);
      }
      for (std::int64_t t = 0; t < blocks * kRows; ++t) {
        const auto to = place_of(tiles, first + t);
        for (std::int64_t v = 0; v < kOut; ++v) {
          const std::int64_t channel = panel + v * kLanes;
          to.take(products + (t * kOut + v) * kLanes, sums_place, offset[v], channel,
                  lanes_from(channel, out.channels));
        }
      }
    });
  });
}

template <typename T, typename Source>
void forward_whole(Source x, const ImageSizes& in, const Tensor& weight, const Tensor& bias, Size2 padding,
                   Tensor& out) {
  const Images<T> results = images_of<T>(out);
  forward<T>(
      std::move(x), in, weight, bias, padding, image_sizes(out),
      [&](const Tiles<T>& tiles, std::int64_t tile) { return Whole<T>{tiles.results(results, tile)}; });
}

}  // namespace

bool winograd_is_faster(DType dtype, const Shape& weight, const Conv2dOptions& params, const Shape& out) {
#if defined(__AVX512F__)
  const bool takes_type = dtype == DType::f32 || (dtype == DType::bf16 && kMultipliesPairs);
#else
  const bool takes_type = false;
#endif
  if (!takes_type || !is_dense(params) || weight[2] != 3 || weight[3] != 3) {
    return false;
  }
  const std::int64_t images = out[0], height = out[2], width = out[3];
  const std::int64_t tiles = ((height + 1) / 2) * ((width + 1) / 2);
  // Odd sizes end with tiles of which a half is not used.
  const bool fills_tiles = height >= 4 && width >= 4 && 3 * tiles <= height * width;
  // Transforming the weights takes as long as so many tiles, and pixels too much with few channels. In bf16
  // products are twice as fast, and transforms are not.
  const auto [least_tiles, least_channels] = dtype == DType::f32 ? std::pair(48, 16) : std::pair(96, 24);
  return fills_tiles && images * tiles >= least_tiles && std::min(weight[0], weight[1]) >= least_channels &&
         weight[0] * weight[1] >= 512;
}

Tensor winograd_weights(const Tensor& weight, bool turned, DType dtype) {
  return dtype == DType::bf16 ? transformed_weights<bfloat16>(weight, turned)
                              : transformed_weights<float>(weight, turned);
}

void winograd_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, Size2 padding, Tensor& out) {
  visit_float(x.dtype(), "conv2d", [&]<typename T>() {
    forward_whole<T>(images_of<T>(x), image_sizes(x), weight, bias, padding, out);
  });
}

void winograd_max_pool_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, Size2 padding,
                               Tensor& out, Tensor& index) {
  visit_float(x.dtype(), "conv2d", [&]<typename T>() {
    const std::int64_t count = out.size(0) * out.size(2) * out.size(3), channels = out.size(1);
    forward<T>(images_of<T>(x), image_sizes(x), weight, bias, padding, unpooled_sizes(out),
               [&](const Tiles<T>&, std::int64_t tile) {
                 return tile < count ? Pooled<T>{out.data<T>() + tile * channels,
                                                 index.data<std::uint8_t>() + tile * channels}
                                     : Pooled<T>{};
               });
  });
}

void winograd_unpooled_forward(const Tensor& grad, const Tensor& index, const Tensor& weight, Size2 padding,
                               Tensor& out) {
  visit_float(grad.dtype(), "conv2d", [&]<typename T>() {
    forward_whole<T>(Unpooled<T>(grad, index), unpooled_sizes(grad), weight, Tensor(), padding, out);
  });
}

}  // namespace millrace::cpu
