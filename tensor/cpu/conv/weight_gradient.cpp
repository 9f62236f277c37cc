#include "tensor/cpu/conv/weight_gradient.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "tensor/cpu/conv/sizes.h"
#include "tensor/cpu/conv/unpooled.h"
#include "tensor/cpu/visit_float.h"
#include "tensor/cpu/words.h"
#include "tensor/tensor.h"

// One tap of the kernel is a matrix product: channels of x by channels of the gradient, summed over all
// pixels. A tile of it, 6 channels of x by 64 of the gradient, stays in registers while the pixels of a few
// images pass. Both sides are packed so that a tile reads one run of memory; in bf16 the same pixel of two
// images makes a pair, which is what the processor multiplies and adds at once, whatever the shift between x
// and the gradient.
namespace millrace::cpu {

using namespace channels;

namespace {

constexpr int kRows = 6, kVecs = 4;  // of a tile: channels of x, vectors of channels of the gradient
constexpr std::int64_t kColumns = kVecs * kLanes;
constexpr std::int64_t kBlockPixels = 256;  // of the images that pass together: they stay in the L2 cache

/// Where a tap reads along one axis: outputs [begin, end), the first of which lies over input `first`.
struct Reach {
  std::int64_t begin, end, first;
  Reach(std::int64_t tap, std::int64_t in, std::int64_t out, std::int64_t stride, std::int64_t padding,
        std::int64_t dilation) {
    const std::int64_t shift = tap * dilation - padding;
    begin = shift >= 0 ? 0 : (-shift + stride - 1) / stride;
    end = in - 1 < shift ? begin : std::min(out, (in - 1 - shift) / stride + 1);
    first = begin * stride + shift;
  }
  std::int64_t count() const { return std::max<std::int64_t>(end - begin, 0); }
};

/// A matrix operand: words of 4 bytes (an f32, or a pair of bf16) by image (or pair), row and pixel.
struct Pixels {
  const float* first;
  std::int64_t image, row, pixel;
};

/// Adds the products of kX channels of x and kGrad vectors of the gradient to `total`.
template <typename T, int kX, int kGrad>
void add_tile(Pixels x, Pixels grad, std::int64_t images, std::int64_t rows, std::int64_t columns,
              float* total) {
  Vec sum[kX][kGrad];
  const auto for_each_sum = [&](auto&& f) {
#pragma GCC unroll 8
    for (int i = 0; i < kX; ++i) {
#pragma GCC unroll 8
      for (int o = 0; o < kGrad; ++o) {
        f(i, o);
      }
    }
  };
  for_each_sum([&](int i, int o) { sum[i][o] = load(total + (i * kGrad + o) * kLanes); });
  for (std::int64_t image = 0; image < images; ++image) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const float* from_x = x.first + image * x.image + row * x.row;
      const float* from_grad = grad.first + image * grad.image + row * grad.row;
      for (std::int64_t column = 0; column < columns; ++column) {
        Vec vec[kGrad];
#pragma GCC unroll 8
        for (int o = 0; o < kGrad; ++o) {
          vec[o] = load(from_grad + o * kLanes);
        }
        for_each_sum([&](int i, int o) { sum[i][o] = multiply_add<T>(sum[i][o], vec[o], from_x[i]); });
        from_x += x.pixel;
        from_grad += grad.pixel;
      }
    }
  }
  for_each_sum([&](int i, int o) { store(total + (i * kGrad + o) * kLanes, sum[i][o]); });
}

template <typename Lanes>
Vec words(const float* image, const float* /*second*/, Lanes lanes) {
  return load(image, lanes);
}

template <typename Lanes>
Vec words(const bfloat16* image, const bfloat16* second, Lanes lanes) {
  using Bits = std::uint32_t __attribute__((vector_size(64)));
  const auto bits = [&](const bfloat16* p) { return reinterpret_cast<Bits>(load(p, lanes)); };
  return reinterpret_cast<Vec>(second == nullptr ? bits(image) >> 16 : bits(image) >> 16 | bits(second));
}

/// `count` neighbouring channels of each pixel of an image, or of two, as words, `step` from pixel to pixel.
template <typename T>
void pack(const T* image, const T* second, const ImageSizes& s, std::int64_t count, std::int64_t step,
          float* out) {
  const std::int64_t pixels = s.height * s.width;
  for_each_group(count, [&](std::int64_t lane, auto lanes) {
    const T* from = image + lane;
    const T* from_second = second == nullptr ? nullptr : second + lane;
    float* to = out + lane;
    for (std::int64_t p = 0; p < pixels; ++p, to += step) {
      store(to,
            words(from + p * s.channels, second == nullptr ? nullptr : from_second + p * s.channels, lanes),
            lanes);
    }
  });
}

/// The images of the gradient are an `Images` or `Unpooled`, one for the first of each pair, one for the
/// other.
template <typename T, typename Source>
class WeightGradient {
 public:
  WeightGradient(const Tensor& x, Source grad, Source second_grad, const ImageSizes& grad_sizes,
                 const Conv2dOptions& params, const Shape& weight)
      : x_(images_of<T>(x)),
        grad_(std::move(grad)),
        second_grad_(std::move(second_grad)),
        in_(image_sizes(x)),
        out_(grad_sizes),
        stride_(params.stride),
        taps_(weight[2] * weight[3]),
        groups_((in_.images + kImages - 1) / kImages),
        block_(std::clamp<std::int64_t>(kBlockPixels / (out_.height * out_.width), 1, groups_)),
        x_pixel_(((in_.channels + kLanes - 1) / kLanes | 1) * kLanes),
        x_image_(in_.height * in_.width * x_pixel_),
        grad_image_(out_.height * out_.width * out_.channels),
        packed_x_(empty({block_ * x_image_})),
        packed_grad_(empty({block_ * grad_image_})),
        total_(zeros({taps_ * in_.channels * out_.channels})) {
    for (std::int64_t y = 0; y < weight[2]; ++y) {
      rows_.emplace_back(y, in_.height, out_.height, params.stride.height, params.padding.height,
                         params.dilation.height);
    }
    for (std::int64_t x_tap = 0; x_tap < weight[3]; ++x_tap) {
      columns_.emplace_back(x_tap, in_.width, out_.width, params.stride.width, params.padding.width,
                            params.dilation.width);
    }
  }

  void run(Tensor& grad_weight) {
    for (std::int64_t first = 0; first < groups_; first += block_) {
      const std::int64_t count = std::min(block_, groups_ - first);
      for (std::int64_t k = 0; k < count; ++k) {
        pack_image(first + k, packed_x_.data<float>() + k * x_image_,
                   packed_grad_.data<float>() + k * grad_image_);
      }
      add_block(count);
    }
    write(grad_weight.data<float>());
  }

 private:
  static constexpr std::int64_t kImages = kPerWord<T>;  // in a word

  /// An image or pair: x by pixels, the gradient in strips that are as wide as a tile.
  void pack_image(std::int64_t group, float* x, float* grad) {
    const std::int64_t first = group * kImages;
    const bool is_single = kImages == 1 || first + 1 == in_.images;
    const T* const none = nullptr;
    pack<T>(x_.image(first), is_single ? none : x_.image(first + 1), in_, in_.channels, x_pixel_, x);
    const T* const image = grad_.image(first);
    const T* const second = is_single ? none : second_grad_.image(first + 1);
    for (std::int64_t o = 0; o < out_.channels; o += kColumns) {
      const std::int64_t count = std::min(kColumns, out_.channels - o);
      pack<T>(image + o, is_single ? none : second + o, out_, count, count,
              grad + o * out_.height * out_.width);
    }
  }

  /// Calls f(first channel of the gradient, vectors, first channel of x, channels) for each tile, in the
  /// order of `total_`.
  template <typename F>
  void for_each_tile(F&& f) const {
    for (std::int64_t o = 0; o < out_.channels; o += kColumns) {
      for (std::int64_t i = 0; i < in_.channels; i += kRows) {
        f(o, std::min<std::int64_t>(kVecs, (out_.channels - o) / kLanes), i,
          std::min<std::int64_t>(kRows, in_.channels - i));
      }
    }
  }

  void add_block(std::int64_t images) {
    float* total = total_.data<float>();
    for_each_tile([&](std::int64_t o, std::int64_t vecs, std::int64_t i, std::int64_t channels) {
      const float* const x = packed_x_.data<float>() + i;
      const float* const grad = packed_grad_.data<float>() + o * out_.height * out_.width;
      const std::int64_t lanes = vecs * kLanes;
      direct::with_constant<kRows>(channels, [&]<int kX>() {
        direct::with_constant<kVecs>(vecs, [&]<int kGrad>() {
          for (const Reach& down : rows_) {
            for (const Reach& across : columns_) {
              add_tile<T, kX, kGrad>({x + (down.first * in_.width + across.first) * x_pixel_, x_image_,
                                      stride_.height * in_.width * x_pixel_, stride_.width * x_pixel_},
                                     {grad + (down.begin * out_.width + across.begin) * lanes, grad_image_,
                                      out_.width * lanes, lanes},
                                     images, down.count(), across.count(), total);
              total += channels * lanes;
            }
          }
        });
      });
    });
  }

  /// From tiles to [O, I, taps].
  void write(float* weight) const {
    const float* total = total_.data<float>();
    for_each_tile([&](std::int64_t o, std::int64_t vecs, std::int64_t i, std::int64_t channels) {
      const std::int64_t lanes = vecs * kLanes;
      for (std::int64_t lane = 0; lane < lanes; ++lane) {
        float* to = weight + ((o + lane) * in_.channels + i) * taps_;
        for (std::int64_t channel = 0; channel < channels; ++channel) {
          for (std::int64_t tap = 0; tap < taps_; ++tap) {
            *to++ = total[(tap * channels + channel) * lanes + lane];
          }
        }
      }
      total += taps_ * channels * lanes;
    });
  }

  Images<T> x_;
  Source grad_, second_grad_;
  ImageSizes in_, out_;
  Size2 stride_;
  std::int64_t taps_, groups_, block_;
  std::vector<Reach> rows_, columns_;  // of each row and column of the kernel
  std::int64_t x_pixel_;  // words of a pixel of x: an odd number of cache lines, so that pixels fill all sets
                          // of a cache
  std::int64_t x_image_, grad_image_;  // words
  Tensor packed_x_, packed_grad_, total_;
};

}  // namespace

bool channel_tiles_are_faster(DType dtype, const Shape& weight, const Conv2dOptions& params,
                              const Shape& out) {
#if defined(__AVX512F__)
  constexpr bool kTakesFloat = true;
#else
  constexpr bool kTakesFloat = false;
#endif
  const bool takes_type = dtype == DType::bf16 ? kMultipliesPairs : kTakesFloat && dtype == DType::f32;
  // A sum over few pixels is soon done: what then counts is how the result is written.
  const bool is_long = out.numel() >= kBlockPixels * weight[0];
  return takes_type && is_long && params.groups == 1 && weight[0] >= 64 && weight[0] % kLanes == 0 &&
         weight[1] >= 24;
}

void channel_tiles_backward_weight(const Tensor& x, const Tensor& grad, const Tensor& index,
                                   const Conv2dOptions& params, Tensor& grad_weight) {
  visit_float(x.dtype(), "conv2d", [&]<typename T>() {
    const auto run = [&](auto source, auto second, const ImageSizes& sizes) {
      WeightGradient<T, decltype(source)>(x, std::move(source), std::move(second), sizes, params,
                                          grad_weight.shape())
          .run(grad_weight);
    };
    if constexpr (std::is_same_v<T, bfloat16>) {
      if (index.defined()) {
        return run(Unpooled<T>(grad, index), Unpooled<T>(grad, index), unpooled_sizes(grad));
      }
    }
    run(images_of<T>(grad), images_of<T>(grad), image_sizes(grad));
  });
}

}  // namespace millrace::cpu
