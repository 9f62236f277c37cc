#include "tensor/cpu/conv/unpooled.h"
#include "tensor/cpu/conv/winograd.h"
#include "tensor/cpu/conv/winograd_tiles.h"

// The weights' gradient goes the way of the forward pass back: what was a matrix product over channels in is
// one over tiles, and transforms are the transposes of those.
namespace millrace::cpu {

using namespace winograd;

namespace {

constexpr int kSumRows = 8;            // channels in whose sums, by a panel's, are in registers
constexpr std::int64_t kSumPlace = 5;  // where a transformed tile of gradients holds their sum

[[gnu::always_inline]] inline Vecs<4> transform_out_gradient(const Vecs<2>& y) {
  return {y[0], y[0] + y[1], y[0] - y[1], -y[1]};
}
[[gnu::always_inline]] inline Vecs<3> transform_weight_gradient(const Vecs<4>& m) {
  const Vec sum = (m[1] + m[2]) * 0.5f;
  return {m[0] + sum, (m[1] - m[2]) * 0.5f, sum + m[3]};
}

/// Up to sixteen channels of a tile of gradients of results.
template <typename P>
[[gnu::noinline]] void transform_gradients(const std::array<P*, 4>& from, std::int64_t channel,
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

/// From sums over tiles: for each place and panel, channels in by those of the panel.
void finish_weights(const float* total, std::int64_t rows, Tensor& grad_weight) {
  const std::int64_t out = grad_weight.size(0), in = grad_weight.size(1), columns = whole_vectors(out);
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

template <typename Source>
void backward_weight(const Tensor& x, Source grad, const ImageSizes& grad_sizes, Size2 padding,
                     Tensor& grad_weight, Tensor& grad_bias) {
  const std::int64_t out = grad_weight.size(0), in = grad_weight.size(1), columns = whole_vectors(out);
  const std::int64_t rows = (in + kSumRows - 1) / kSumRows * kSumRows;
  const Images<float> images = images_of<float>(x);
  const Tiles<float> tiles(image_sizes(x), grad_sizes, padding, {.out_words = columns, .least_blocks = 8});
  const std::int64_t block = kRows * whole_vectors(in), place = place_step(tiles.blocks() * block);
  const std::int64_t most = tiles.blocks() * kRows, grad_place = place_step(most * columns);
  Tensor pixels = empty({kPlaces * place}), gradients = empty({kPlaces * grad_place});
  const Tensor totals = zeros({kPlaces * rows * columns}), bias_totals = zeros({columns});
  float* const from_x = pixels.data<float>();
  float* const from_grad = gradients.data<float>();
  tiles.for_each_chunk([&](std::int64_t first, std::int64_t blocks) {
    for (std::int64_t t = 0; t < blocks * kRows; ++t) {
      transform_pixels<float>(tiles.pixels(images, first + t), in, place,
                              from_x + t / kRows * block + t % kRows * kLanes);
      const auto results = tiles.results(grad, first + t);
      for_each_panel(out, [&]<int kOut>(std::int64_t panel) {
        for (std::int64_t v = 0; v < kOut; ++v) {
          transform_gradients(results, panel + v * kLanes, out, grad_place,
                              from_grad + panel * most + (t * kOut + v) * kLanes);
        }
      });
    }
    if (grad_bias.defined()) {
      for_each_panel(out, [&]<int kOut>(std::int64_t panel) {
        add_tiles<kOut>(from_grad + kSumPlace * grad_place + panel * most, blocks,
                        bias_totals.data<float>() + panel);
      });
    }
    float* total = totals.data<float>();
    for (std::int64_t p = 0; p < kPlaces; ++p) {
      for_each_panel(out, [&]<int kOut>(std::int64_t panel) {
        for (std::int64_t i = 0; i < rows; i += kSumRows, total += kSumRows * kOut * kLanes) {
          add_products<kOut>(from_x + p * place + i / kLanes * kBlock + i % kLanes,
                             from_grad + p * grad_place + panel * most, blocks, block, total);
        }
      });
    }
  });
  if (grad_bias.defined()) {
    std::copy_n(bias_totals.data<float>(), out, grad_bias.data<float>());
  }
  finish_weights(totals.data<float>(), rows, grad_weight);
}

}  // namespace

void winograd_backward_weight(const Tensor& x, const Tensor& grad, const Tensor& index, Size2 padding,
                              Tensor& grad_weight, Tensor& grad_bias) {
  if (index.defined()) {
    backward_weight(x, Unpooled<float>(grad, index), unpooled_sizes(grad), padding, grad_weight, grad_bias);
  } else {
    backward_weight(x, images_of<float>(grad), image_sizes(grad), padding, grad_weight, grad_bias);
  }
}

}  // namespace millrace::cpu
