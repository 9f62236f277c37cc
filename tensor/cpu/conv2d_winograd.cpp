#include "tensor/cpu/conv2d_winograd.h"

#include <utility>

#include "tensor/cpu/winograd_tiles.h"

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

/// The other way: up to sixteen channels of a tile's results. What is null in `to` is none.
template <typename T>
[[gnu::noinline]] void finish_results(const float* sums, std::int64_t place, Vec bias,
                                      const std::array<T*, 4>& to, std::int64_t channel,
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

template <typename T>
void forward(const Tensor& x, const Tensor& weight, const Tensor& bias, Size2 padding, Tensor& out) {
  const std::int64_t words = words_of<T>(x.size(1)), out_channels = out.size(1);
  const Tiles<T> tiles(x, out, padding, {.out_words = kColumns, .least_blocks = 2});
  const std::int64_t block = kRows * whole_vectors(words), place = place_step(tiles.blocks() * block);
  const std::int64_t sums_place = place_step(tiles.blocks() * kRows * kColumns);
  Tensor pixels = empty({kPlaces * place}), sums = empty({kPlaces * sums_place});
  float* const in = pixels.data<float>();
  float* const products = sums.data<float>();
  tiles.for_each_chunk([&](std::int64_t first, std::int64_t blocks) {
    for (std::int64_t t = 0; t < blocks * kRows; ++t) {
      transform_pixels<T>(tiles.pixels(x.data<T>(), first + t), x.size(1), place,
                          in + t / kRows * block + t % kRows * kLanes);
    }
    const float* from = weight.data<float>();
    for_each_panel(out_channels, [&]<int kOut>(std::int64_t panel) {
      for (std::int64_t p = 0; p < kPlaces; ++p, from += words * kOut * kLanes) {
        for (std::int64_t b = 0; b < blocks; ++b) {
          multiply<T, kOut>(in + p * place + b * block, from, words,
                            products + p * sums_place + b * kRows * kOut * kLanes);
        }
      }
      std::array<Vec, kOut> offset = {};
      for (std::int64_t v = 0; v < kOut && bias.defined(); ++v) {
        offset[v] = load_from(bias.data<float>(), panel + v * kLanes, out_channels);
      }
      for (std::int64_t t = 0; t < blocks * kRows; ++t) {
        const std::array<T*, 4> to = tiles.results(out.data<T>(), first + t);
        for (std::int64_t v = 0; v < kOut; ++v) {
          finish_results<T>(products + (t * kOut + v) * kLanes, sums_place, offset[v], to, panel + v * kLanes,
                            out_channels);
        }
      }
    });
  });
}

}  // namespace

bool winograd_is_faster(const Shape& weight, const Conv2dParams& params, const Tensor& out) {
#if defined(__AVX512F__)
  const bool takes_type = out.dtype() == DType::f32 || (out.dtype() == DType::bf16 && kMultipliesPairs);
#else
  const bool takes_type = false;
#endif
  if (!takes_type || !is_dense(params) || weight[2] != 3 || weight[3] != 3) {
    return false;
  }
  const auto [images, channels, height, width] = image_sizes(out);
  const std::int64_t tiles = ((height + 1) / 2) * ((width + 1) / 2);
  // Odd sizes end with tiles of which a half is not used.
  const bool fills_tiles = height >= 4 && width >= 4 && 3 * tiles <= height * width;
  // Transforming the weights takes as long as so many tiles, and pixels too much with few channels. In bf16
  // products are twice as fast, and transforms are not.
  const auto [least_tiles, least_channels] =
      out.dtype() == DType::f32 ? std::pair(48, 16) : std::pair(96, 24);
  return fills_tiles && images * tiles >= least_tiles && std::min(weight[0], weight[1]) >= least_channels &&
         weight[0] * weight[1] >= 512;
}

Tensor winograd_weights(const Tensor& weight, bool turned, DType dtype) {
  return dtype == DType::bf16 ? transformed_weights<bfloat16>(weight, turned)
                              : transformed_weights<float>(weight, turned);
}

void winograd_forward(const Tensor& x, const Tensor& weight, const Tensor& bias, Size2 padding, Tensor& out) {
  const auto run = x.dtype() == DType::bf16 ? forward<bfloat16> : forward<float>;
  run(x, weight, bias, padding, out);
}

}  // namespace millrace::cpu
