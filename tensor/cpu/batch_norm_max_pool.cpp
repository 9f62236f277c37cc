#include <algorithm>
#include <utility>
#include <vector>

#include "tensor/cpu/batch_norm.h"
#include "tensor/cpu/image_sizes.h"
#include "tensor/cpu/visit_float.h"
#include "tensor/kernels/norm.h"

// Batch norm, its activation and a max pooling of 2x2 windows: of four pixels one goes on, and of four
// gradients three are 0, so that a window is passed on as one pixel.
namespace millrace::cpu {

using namespace channels;
using namespace normalizing;

namespace {

constexpr std::int64_t kBlockWindows = 64;

/// The 2x2 windows of a batch of images, channels-last.
class Windows {
 public:
  explicit Windows(const Tensor& x)
      : sizes_(image_sizes(x)), row_(sizes_.width * sizes_.channels), across_(sizes_.width / 2) {}

  std::int64_t channels() const { return sizes_.channels; }
  std::int64_t pixels() const { return sizes_.images * sizes_.height * sizes_.width; }
  /// In all images, which lie one below the other.
  std::int64_t count() const { return pixels() / 4; }
  /// Where the pixels of a window are, from its first one on.
  std::array<std::int64_t, 4> places() const { return {0, sizes_.channels, row_, row_ + sizes_.channels}; }

  /// Calls f(place of the first pixel, place of the window, channel, lanes) for each sixteen channels of the
  /// windows [first, last), in the order of memory.
  template <typename F>
  void for_each(std::int64_t first, std::int64_t last, F&& f) const {
    for (std::int64_t window = first; window < last; ++window) {
      const std::int64_t pixel = 2 * (window / across_ * row_ + window % across_ * sizes_.channels);
      for_each_group(sizes_.channels, [&](std::int64_t c, auto lanes) {
        f(pixel + c, window * sizes_.channels + c, c, lanes);
      });
    }
  }

 private:
  ImageSizes sizes_;
  std::int64_t row_;     // of pixels
  std::int64_t across_;  // windows in a row
};

template <typename ActivationFunction, typename T>
void apply(const T* x, const Windows& windows, const Affine& affine, T* out, std::uint8_t* index) {
  const std::array<std::int64_t, 4> places = windows.places();
  windows.for_each(
      0, windows.count(), [&](std::int64_t pixel, std::int64_t window, std::int64_t c, auto lanes) {
        const Vec mean = load(affine.mean + c, lanes), scale = load(affine.scale.data() + c, lanes),
                  shift = load(affine.shift.data() + c, lanes);
        const auto value = [&](int i) {
          return rounded<T>(
              ActivationFunction::value((load(x + pixel + places[i], lanes) - mean) * scale + shift));
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
}

template <typename ActivationFunction, typename T>
struct Backward {
  const T *grad, *x;
  const std::uint8_t* index;
  Windows windows;
  const Affine& affine;

  /// Of a window, how far each pixel is from the mean, which is the largest, and the gradient of its z.
  struct Window {
    std::array<Vec, 4> distance;
    IntVec winner;
    Vec grad_z;
    Vec winners_distance;
  };

  template <typename Lanes>
  Window read(std::int64_t pixel, std::int64_t window, std::int64_t c, Lanes lanes) const {
    const std::array<std::int64_t, 4> places = windows.places();
    const Vec mean = load(affine.mean + c, lanes);
    Window w;
    w.winner = load(index + window, lanes);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      w.distance[i] = load(x + pixel + places[i], lanes) - mean;
      w.winners_distance = i == 0                     ? w.distance[0]
                           : w.winner == broadcast(i) ? w.distance[i]
                                                      : w.winners_distance;
    }
    const Vec z =
        w.winners_distance * load(affine.scale.data() + c, lanes) + load(affine.shift.data() + c, lanes);
    w.grad_z = ActivationFunction::gradient(z, load(grad + window, lanes));
    return w;
  }

  /// Per channel: the sum of the gradient of z, and of that times (x - mean): over a block of windows in f32,
  /// then in f64.
  void sum(std::span<double> sums, std::span<double> products) const {
    std::vector<float> sum(sums.size()), product(sums.size());
    for (std::int64_t first = 0; first < windows.count(); first += kBlockWindows) {
      windows.for_each(first, std::min(first + kBlockWindows, windows.count()),
                       [&](std::int64_t pixel, std::int64_t window, std::int64_t c, auto lanes) {
                         const Window w = read(pixel, window, c, lanes);
                         float* const at = sum.data() + c;
                         float* const product_at = product.data() + c;
                         store(at, load(at, lanes) + w.grad_z, lanes);
                         store(product_at, load(product_at, lanes) + w.grad_z * w.winners_distance, lanes);
                       });
      for (std::size_t c = 0; c < sums.size(); ++c) {
        sums[c] += std::exchange(sum[c], 0.0f);
        products[c] += std::exchange(product[c], 0.0f);
      }
    }
  }

  void write(const Coefficients& to_x, T* grad_x) const {
    const std::array<std::int64_t, 4> places = windows.places();
    windows.for_each(0, windows.count(),
                     [&](std::int64_t pixel, std::int64_t window, std::int64_t c, auto lanes) {
                       const Window w = read(pixel, window, c, lanes);
                       const Vec a = load(to_x.a.data() + c, lanes), b = load(to_x.b.data() + c, lanes),
                                 offset = load(to_x.c.data() + c, lanes);
#pragma GCC unroll 4
                       for (int i = 0; i < 4; ++i) {
                         const Vec grad_z = w.winner == broadcast(i) ? w.grad_z : Vec{};
                         store(grad_x + pixel + places[i], grad_z * a + (w.distance[i] * b + offset), lanes);
                       }
                     });
  }
};

void check([[maybe_unused]] const Tensor& x, [[maybe_unused]] const Tensor& pooled,
           [[maybe_unused]] const Tensor& index) {
  assert(x.size(2) == 2 * pooled.size(2) && x.size(3) == 2 * pooled.size(3));
  assert(index.dtype() == DType::u8 && index.shape() == pooled.shape());
}

}  // namespace

void batch_norm_max_pool2d_apply(UnaryOp activation, const Tensor& x, const Tensor& mean, const Tensor& var,
                                 double eps, const Tensor& weight, const Tensor& bias, Tensor& out,
                                 Tensor& index) {
  check(x, out, index);
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
  check(x, grad, index);
  const Affine affine = affine_of(mean, var, eps, weight, bias);
  visit_float(x.dtype(), "batch_norm", [&]<typename T>() {
    visit_activation(activation, [&]<typename A>() {
      const Backward<A, T> backward{grad.data<T>(), x.data<T>(), index.data<std::uint8_t>(), Windows(x),
                                    affine};
      const auto size = static_cast<std::size_t>(x.size(1));
      std::vector<double> sums(size), products(size);
      if (training || grad_weight.defined() || grad_bias.defined()) {
        backward.sum(sums, products);
      }
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
