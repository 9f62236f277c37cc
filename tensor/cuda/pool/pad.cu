#include "tensor/cuda/channels.cuh"
#include "tensor/kernels/pool.h"

namespace millrace::cuda {
namespace {

/// One axis of an image that is padded on both sides.
struct PadAxis {
  int before, size, after;
  bool reflect;

  /// The input that output `o` shows, or -1 for a zero.
  __device__ int source_of(int o) const {
    const int i = o - before;
    if (i >= 0 && i < size) {
      return i;
    }
    return !reflect ? -1 : i < 0 ? -i : 2 * (size - 1) - i;
  }

  /// The outputs that show input i: itself (0) and its mirror images (1 and 2), or -1.
  __device__ int shown_at(int i, int image) const {
    if (image == 0) {
      return before + i;
    }
    if (image == 1) {
      return reflect && i >= 1 && i <= before ? before - i : -1;
    }
    return reflect && i < size - 1 && i >= size - 1 - after ? before + 2 * (size - 1) - i : -1;
  }

  __device__ int out() const { return before + size + after; }

  /// @throws InputError when the sizes are too large for the arithmetic above.
  static PadAxis of(std::int64_t before, std::int64_t size, std::int64_t after, PadMode mode) {
    constexpr std::int64_t kMost = std::int64_t{1} << 29;
    if (before > kMost || size > kMost || after > kMost) {
      throw InputError("pad2d: got {} + {} + {} pixels on a side, expected at most 2^29 each on CUDA", before,
                       size, after);
    }
    return {static_cast<int>(before), static_cast<int>(size), static_cast<int>(after),
            mode == PadMode::reflect};
  }
};

template <int N, typename T>
__global__ void forward(const T* __restrict__ x, Places outputs, PadAxis down, PadAxis across,
                        T* __restrict__ out) {
  for (const std::int64_t i : grid_range(outputs.count)) {
    const auto at = outputs(i);
    const int y = down.source_of(at.y), w = across.source_of(at.x);
    Pack<T, N> pack{};
    if (y >= 0 && w >= 0) {
      const std::int64_t pixel = (std::int64_t{at.image} * down.size + y) * across.size + w;
      pack = load_pack<T, N>(x + (pixel * outputs.packs + at.pack) * N);
    }
    store_pack(out + i * N, pack);
  }
}

template <int N, typename T>
__global__ void backward(const T* __restrict__ grad, Places inputs, PadAxis down, PadAxis across,
                         T* __restrict__ grad_x) {
  for (const std::int64_t i : grid_range(inputs.count)) {
    const auto at = inputs(i);
    float sum[N] = {};
    for (int r = 0; r < 3; ++r) {
      const int y = down.shown_at(at.y, r);
      for (int c = 0; c < 3; ++c) {
        const int w = across.shown_at(at.x, c);
        if (y < 0 || w < 0) {
          continue;
        }
        const std::int64_t pixel = (std::int64_t{at.image} * down.out() + y) * across.out() + w;
        const auto pack = load_pack<T, N>(grad + (pixel * inputs.packs + at.pack) * N);
        for (int k = 0; k < N; ++k) {
          sum[k] += to_float(pack.at[k]);
        }
      }
    }
    Pack<T, N> result;
    for (int k = 0; k < N; ++k) {
      result.at[k] = from_float<T>(sum[k]);
    }
    store_pack(grad_x + i * N, result);
  }
}

}  // namespace

const KernelRow kPad2dForward("pad2d_forward", cuda::pad2d_forward,
                              {takes::image("x"), takes::image_like("x", "out")});
void pad2d_forward(const Tensor& x, const Pad2d& pad, PadMode mode, Tensor& out) {
  kPad2dForward.check({&x, &out});
  const PadAxis down = PadAxis::of(pad.top, x.size(2), pad.bottom, mode);
  const PadAxis across = PadAxis::of(pad.left, x.size(3), pad.right, mode);
  visit_activations(x.dtype(), "pad2d", [&]<typename T>() {
    visit_pack<T>(
        x.size(1),
        [&]<int N>() {
          const Places outputs = Places::of("pad2d", out, N);
          launch("pad2d", forward<N, T>, grid_for(outputs.count), stream_of(out), data_of<T>(x), outputs,
                 down, across, data_of<T>(out));
        },
        x, out);
  });
}

const KernelRow kPad2dBackward("pad2d_backward", cuda::pad2d_backward,
                               {takes::image("grad"), takes::image_like("grad", "grad_x")});
void pad2d_backward(const Tensor& grad, const Pad2d& pad, PadMode mode, Tensor& grad_x) {
  kPad2dBackward.check({&grad, &grad_x});
  const PadAxis down = PadAxis::of(pad.top, grad_x.size(2), pad.bottom, mode);
  const PadAxis across = PadAxis::of(pad.left, grad_x.size(3), pad.right, mode);
  visit_activations(grad.dtype(), "pad2d", [&]<typename T>() {
    visit_pack<T>(
        grad.size(1),
        [&]<int N>() {
          const Places inputs = Places::of("pad2d", grad_x, N);
          launch("pad2d backward", backward<N, T>, grid_for(inputs.count), stream_of(grad_x),
                 data_of<T>(grad), inputs, down, across, data_of<T>(grad_x));
        },
        grad, grad_x);
  });
}

}  // namespace millrace::cuda
