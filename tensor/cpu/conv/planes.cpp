#include "tensor/cpu/conv/planes.h"

#include <algorithm>
#include <array>
#include <vector>

#include "tensor/cpu/channels.h"

// A row of an image is taken apart into planes, one for each channel, so that neighbouring pixels lie side by
// side at each tap and fill a vector whatever the number of channels is.
namespace millrace::cpu::direct {

using namespace channels;

namespace {

#if defined(__AVX512F__)
constexpr int kPixelVecs = 2;  // at a time; with eight output channels their sums stay in registers
#else
constexpr int kPixelVecs = 1;
#endif

/// Lane l of the result is lane index[l] of `from`.
Vec pick(Vec from, IntVec index) {
#if defined(__AVX512F__)
  return _mm512_maskz_permutexvar_ps(0xffff, reinterpret_cast<__m512i>(index),
                                     from);  // without a mask GCC 12 warns
#else
  Vec picked{};
  for (int l = 0; l < kLanes; ++l) {
    picked[l] = from[index[l]];
  }
  return picked;
#endif
}

/// How sixteen elements that lie `count` apart, from element q on, are found in the `count` vectors that hold
/// them: in which, and where.
struct Spread {
  IntVec vector, lane;
};
Spread spread(std::int64_t count, std::int64_t q) {
  Spread s;
  for (std::int64_t l = 0; l < kLanes; ++l) {
    s.vector[l] = static_cast<std::int32_t>((l * count + q) / kLanes);
    s.lane[l] = static_cast<std::int32_t>((l * count + q) % kLanes);
  }
  return s;
}

/// The other way round: vector j of the elements of `count` vectors in turn.
Spread gathered(std::int64_t count, std::int64_t j) {
  Spread s;
  for (std::int64_t l = 0; l < kLanes; ++l) {
    s.vector[l] = static_cast<std::int32_t>((j * kLanes + l) % count);
    s.lane[l] = static_cast<std::int32_t>((j * kLanes + l) / count);
  }
  return s;
}

/// The rows of an image, each as a plane for each channel.
struct Planes {
  std::int64_t length;  // of a plane, with room for vectors that reach beyond it
  std::int64_t row;
  std::vector<float> data;
};

void take_apart(const float* image, const Sizes& s, Planes& planes) {
  std::array<Spread, kMostChannels> spreads;
  for (std::int64_t q = 0; q < s.channels; ++q) {
    spreads[static_cast<std::size_t>(q)] = spread(s.channels, q);
  }
  float* to = planes.data.data();
  for (std::int64_t h = 0; h < s.height; ++h, image += s.row, to += planes.row) {
    for (std::int64_t first = 0, place = 0; first < s.row; first += s.channels * kLanes, place += kLanes) {
      std::array<Vec, kMostChannels> part;
      for (std::int64_t v = 0; v < s.channels; ++v) {
        const std::int64_t left = s.row - first - v * kLanes;
        const float* from = image + first + v * kLanes;
        part[static_cast<std::size_t>(v)] = left >= kLanes ? load(from) : left > 0 ? load(from, left) : Vec{};
      }
      for (std::int64_t q = 0; q < s.channels; ++q) {
        const Spread& where = spreads[static_cast<std::size_t>(q)];
        Vec plane{};
        for (std::int64_t v = 0; v < s.channels; ++v) {
          plane = where.vector == broadcast(static_cast<std::int32_t>(v))
                      ? pick(part[static_cast<std::size_t>(v)], where.lane)
                      : plane;
        }
        store(to + q * planes.length + place, plane);
      }
    }
  }
}
/// Puts `channels` vectors of neighbouring pixels in the order of memory: `count` floats, pixel by pixel.
template <int kOut>
void store_pixels(const Vec* sum, std::int64_t stride, const Spread* order, std::int64_t count, float* to) {
  for (int j = 0; j < kOut && count > 0; ++j, count -= kLanes, to += kLanes) {
    Vec mixed = pick(sum[0], order[j].lane);
    for (int o = 1; o < kOut; ++o) {
      mixed = order[j].vector == broadcast(o) ? pick(sum[o * stride], order[j].lane) : mixed;
    }
    count >= kLanes ? store(to, mixed) : store(to, mixed, count);
  }
}

/// One row of output: from `planes`, the first row of its windows. `weight` holds kMostChannels numbers for
/// each tap, `place` where in a row of planes a run's taps begin.
template <int kOut>
void forward_row(const float* planes, const std::int64_t* place, const float* weight, const float* bias,
                 const Sizes& s, const Planes& p, const Spread* order, float* out) {
  for (std::int64_t first = 0; first < s.out_width; first += kPixelVecs * kLanes) {
    Vec sum[kOut][kPixelVecs];
    for (int o = 0; o < kOut; ++o) {
      std::fill_n(sum[o], kPixelVecs, broadcast(bias[o]));
    }
    const float* w = weight;
    for (std::int64_t kh = 0; kh < s.kernel_height; ++kh) {
      const float* row = planes + kh * p.row + first;
      for (std::int64_t tap = 0; tap < s.run; ++tap, w += kMostChannels) {
        Vec x[kPixelVecs];
#pragma GCC unroll 2
        for (int v = 0; v < kPixelVecs; ++v) {
          x[v] = load(row + place[tap] + v * kLanes);
        }
#pragma GCC unroll 8
        for (int o = 0; o < kOut; ++o) {
#pragma GCC unroll 2
          for (int v = 0; v < kPixelVecs; ++v) {
            sum[o][v] += w[o] * x[v];
          }
        }
      }
    }
    for (int v = 0; v < kPixelVecs; ++v) {
      const std::int64_t pixel = first + v * kLanes;
      store_pixels<kOut>(&sum[0][v], kPixelVecs, order, (s.out_width - pixel) * kOut, out + pixel * kOut);
    }
  }
}

}  // namespace

bool planes_are_faster(const Sizes& s) {
  constexpr std::int64_t kTile = kPixelVecs * kLanes;
  const std::int64_t computed = (s.out_width + kTile - 1) / kTile * kTile;
  return s.step == s.channels && 4 * s.out_width >= 3 * computed;
}

void planes_forward(const float* x, const float* packed, const float* bias, const Sizes& s, float* out) {
  thread_local Planes planes;
  planes.length = (s.width + kLanes) / kLanes * kLanes + s.kernel_width + kPixelVecs * kLanes;
  planes.row = s.channels * planes.length;
  planes.data.resize(static_cast<std::size_t>(s.height * planes.row));
  std::vector<std::int64_t> place(static_cast<std::size_t>(s.run));
  for (std::int64_t tap = 0; tap < s.run; ++tap) {
    place[static_cast<std::size_t>(tap)] = tap % s.channels * planes.length + tap / s.channels;
  }
  std::array<Spread, kMostChannels> order;
  for (std::int64_t j = 0; j < s.out_channels; ++j) {
    order[static_cast<std::size_t>(j)] = gathered(s.out_channels, j);
  }
  const std::int64_t down = s.row_step / s.row * planes.row;
  for (std::int64_t n = 0; n < s.images; ++n, x += s.height * s.row) {
    take_apart(x, s, planes);
    with_constant<kMostChannels>(s.out_channels, [&]<int kOut>() {
      for (std::int64_t oh = 0; oh < s.out_height; ++oh, out += s.out_width * kOut) {
        forward_row<kOut>(planes.data.data() + oh * down, place.data(), packed, bias, s, planes, order.data(),
                          out);
      }
    });
  }
}

}  // namespace millrace::cpu::direct
