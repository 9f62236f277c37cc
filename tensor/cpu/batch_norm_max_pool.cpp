#include <algorithm>
#include <vector>

#include "tensor/cpu/batch_norm.h"
#include "tensor/cpu/image_sizes.h"
#include "tensor/cpu/visit_float.h"

// Batch norm, its activation and a max pooling of 2x2 windows: of four pixels one goes on, and of four
// gradients three are 0, so that a window is passed on as one pixel.
namespace millrace::cpu {

using namespace channels;
using namespace normalizing;

namespace {

/// The windows of a batch of images: pixels, channels-last.
class Windows {
 public:
  explicit Windows(const Tensor& x) : sizes_(image_sizes(x)), row_(sizes_.width * sizes_.channels) {}

  std::int64_t channels() const { return sizes_.channels; }
  std::int64_t pixels() const { return sizes_.images * sizes_.height * sizes_.width; }
  /// Of all images.
  std::int64_t rows() const { return sizes_.images * sizes_.height / 2; }
  std::int64_t in_a_row() const { return sizes_.width / 2; }

  /// Where the pixels of a window are, from its first one on.
  std::array<std::int64_t, 4> places() const { return {0, sizes_.channels, row_, row_ + sizes_.channels}; }
  /// The first pixel of a row of windows; the others are two pixels apart.
  std::int64_t first_pixel(std::int64_t row) const { return 2 * row * row_; }
  std::int64_t first_window(std::int64_t row) const { return row * in_a_row() * sizes_.channels; }

 private:
  ImageSizes sizes_;
  std::int64_t row_;  // of pixels
};

/// Calls f(place of the first pixel, place of the window) for a row of windows, at channel c.
template <typename F>
void for_each_window(const Windows& windows, std::int64_t row, std::int64_t c, F&& f) {
  std::int64_t pixel = windows.first_pixel(row) + c, window = windows.first_window(row) + c;
  for (std::int64_t i = 0; i < windows.in_a_row(); ++i) {
    f(pixel, window);
    pixel += 2 * windows.channels();
    window += windows.channels();
  }
}

template <typename Activation, typename T>
void apply(const T* x, const Windows& windows, const Affine& affine, T* out, std::uint8_t* index) {
  const std::array<std::int64_t, 4> places = windows.places();
  for (std::int64_t row = 0; row < windows.rows(); ++row) {
    for_each_group(windows.channels(), [&](std::int64_t c, auto lanes) {
      const Vec mean = load(affine.mean + c, lanes), scale = load(affine.scale.data() + c, lanes),
                shift = load(affine.shift.data() + c, lanes);
      for_each_window(windows, row, c, [&](std::int64_t pixel, std::int64_t window) {
        const auto value = [&](int i) {
          return rounded<T>(Activation::value((load(x + pixel + places[i], lanes) - mean) * scale + shift));
        };
        Vec best = value(0);
        IntVec winner{};
#pragma GCC unroll 3
        for (int i = 1; i < 4; ++i) {
          take_larger(value(i), i, best, winner);
        }
        store(out + window, best, lanes);
        store(index + window, winner, lanes);
      });
    });
  }
}

template <typename Activation, typename T>
struct Backward {
  const T *grad, *x;
  const std::uint8_t* index;
  Windows windows;
  const Affine& affine;

  /// Per channel: the sum of the gradient of z, and of that times (x - mean).
  void sum(std::span<double> sums, std::span<double> products) const {
    const std::array<std::int64_t, 4> places = windows.places();
    for (std::int64_t row = 0; row < windows.rows(); ++row) {
      for_each_group(windows.channels(), [&](std::int64_t c, auto lanes) {
        const Vec mean = load(affine.mean + c, lanes), scale = load(affine.scale.data() + c, lanes),
                  shift = load(affine.shift.data() + c, lanes);
        Vec sum{}, product{};
        for_each_window(windows, row, c, [&](std::int64_t pixel, std::int64_t window) {
          const IntVec winner = load(index + window, lanes);
          Vec value = load(x + pixel, lanes);
#pragma GCC unroll 3
          for (int i = 1; i < 4; ++i) {
            value = winner == broadcast(i) ? load(x + pixel + places[i], lanes) : value;
          }
          const Vec distance = value - mean;
          const Vec grad_z = Activation::gradient(distance * scale + shift, load(grad + window, lanes));
          sum += grad_z;
          product += grad_z * distance;
        });
        for (std::int64_t lane = 0; lane < lanes; ++lane) {
          sums[c + lane] += sum[lane];
          products[c + lane] += product[lane];
        }
      });
    }
  }

  void write(const Coefficients& to_x, T* grad_x) const {
    const std::array<std::int64_t, 4> places = windows.places();
    for (std::int64_t row = 0; row < windows.rows(); ++row) {
      for_each_group(windows.channels(), [&](std::int64_t c, auto lanes) {
        const Vec mean = load(affine.mean + c, lanes), scale = load(affine.scale.data() + c, lanes),
                  shift = load(affine.shift.data() + c, lanes), to_a = load(to_x.a.data() + c, lanes),
                  to_b = load(to_x.b.data() + c, lanes), to_c = load(to_x.c.data() + c, lanes);
        for_each_window(windows, row, c, [&](std::int64_t pixel, std::int64_t window) {
          const IntVec winner = load(index + window, lanes);
          const Vec g = load(grad + window, lanes);
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) {
            const Vec distance = load(x + pixel + places[i], lanes) - mean;
            const Vec grad_z =
                Activation::gradient(distance * scale + shift, winner == broadcast(i) ? g : Vec{});
            store(grad_x + pixel + places[i], grad_z * to_a + (distance * to_b + to_c), lanes);
          }
        });
      });
    }
  }
};

}  // namespace

void batch_norm_max_pool2d_apply(UnaryOp activation, const Tensor& x, const Tensor& mean, const Tensor& var,
                                 double eps, const Tensor& weight, const Tensor& bias, Tensor& out,
                                 Tensor& index) {
  const Affine affine = affine_of(mean, var, eps, weight, bias);
  visit_float(x.dtype(), "batch_norm", [&]<typename T>() {
    visit_activation(activation, [&]<typename A>() {
      apply<A>(x.data<T>(), Windows(x), affine, out.data<T>(), index.data<std::uint8_t>());
    });
  });
}

void batch_norm_max_pool2d_backward(UnaryOp activation, const Tensor& grad, const Tensor& index,
                                    const Tensor& x, const Tensor& mean, const Tensor& var, double eps,
                                    const Tensor& weight, const Tensor& bias, bool training, Tensor& grad_x,
                                    Tensor& grad_weight, Tensor& grad_bias) {
  const Affine affine = affine_of(mean, var, eps, weight, bias);
  visit_float(x.dtype(), "batch_norm", [&]<typename T>() {
    visit_activation(activation, [&]<typename A>() {
      const Backward<A, T> backward{grad.data<T>(), x.data<T>(), index.data<std::uint8_t>(), Windows(x),
                                    affine};
      const auto size = static_cast<std::size_t>(x.size(1));
      std::vector<double> sums(size), products(size);
      backward.sum(sums, products);
      const Coefficients to_x =
          finish_sums({grad, x, mean, var, eps, weight, training, grad_x, grad_weight, grad_bias},
                      backward.windows.pixels(), sums, products);
      if (grad_x.defined()) {
        backward.write(to_x, grad_x.data<T>());
      }
    });
  });
}

}  // namespace millrace::cpu
