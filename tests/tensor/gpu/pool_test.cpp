#include "tensor/kernels/pool.h"

#include "support.h"
#include "tensor/kernels/launch.h"

namespace millrace {
namespace {

constexpr MemoryFormat kLast = MemoryFormat::channels_last;

struct PoolCase {
  Shape x;
  Size2 out;
  Pool2dOptions params;
};

const PoolCase kPoolCases[] = {
    {{2, 6, 28, 28}, {14, 14}, {}},
    {{2, 16, 10, 10}, {5, 5}, {}},
    {{8, 6, 4, 4}, {2, 2}, {}},
    {{1, 70, 7, 5}, {3, 2}, {}},  // the last row and column are in no window
    {{2, 33, 1, 1}, {1, 1}, {.kernel = 1, .stride = 1}},
    {{2, 8, 9, 8}, {5, 4}, {.kernel = 3, .stride = 2, .padding = 1}},
    {{1, 24, 8, 9}, {8, 4}, {.kernel = {3, 2}, .stride = {1, 2}, .padding = {1, 0}}},
    {{1, 3, 9, 9}, {3, 3}, {.kernel = 2, .stride = 3}},
    {{1, 2, 20, 20}, {4, 4}, {.kernel = 17, .stride = 1}},  // more than 256 places
    {{1, 8, 18, 17}, {1, 1}, {.kernel = 17, .stride = 5}},
    {{2, 24, 7, 7}, {1, 1}, {.kernel = 0}},
    {{2, 9, 7, 10}, {3, 4}, {.kernel = 0}},
    {{1, 8, 2, 3}, {5, 6}, {.kernel = 0}},  // windows overlap
    {{1, 4, 2, 2}, {2, 2}, {.kernel = 3, .stride = 1, .padding = 1}},
    {{0, 8, 4, 4}, {2, 2}, {}},
    {{3, 0, 4, 4}, {2, 2}, {}},
};

class CudaPool : public CudaNetworkKernels {};

/// Both add the same numbers in the same order.
constexpr int kSameOrder = 0;
/// A GPU fuses the products with the additions, and no input lies in more than 16 windows.
constexpr int kShares = 2 * 16;

/// Few different values, so that ties are common, and some that are no numbers.
Tensor with_ties(const Shape& shape, DType dtype, std::uint64_t seed) {
  Draw draw(seed);
  std::vector<double> numbers(static_cast<std::size_t>(shape.numel()));
  for (double& number : numbers) {
    number = std::round(2 * draw.next());
    number = draw.next() > 0.95 ? std::numeric_limits<double>::quiet_NaN() : number;
    number = draw.next() > 0.9 ? -std::numeric_limits<double>::infinity() : number;
  }
  return Draw::filled(numbers, shape, {.dtype = dtype, .format = kLast});
}

TEST_F(CudaPool, MaximaAndTheirPlacesAreTheCpus) {
  std::uint64_t seed = 20;
  for (const PoolCase& c : kPoolCases) {
    for (DType dtype : kActivations) {
      const std::string what = fmt::format("{} {} seed {}", dtype, c.x, ++seed);
      const TensorOptions image{.dtype = dtype, .format = kLast};
      const Shape shape{c.x[0], c.x[1], c.out.height, c.out.width};
      const DType index_type = c.params.kernel.height > 16 ? DType::i32 : DType::u8;
      const TensorOptions place{.dtype = index_type, .format = kLast};
      const Tensor x = with_ties(c.x, dtype, seed);
      expect_like_cpu(
          "max_pool2d " + what,
          [&](Device device, const Tensors& in, Tensors& out) {
            MILLRACE_LAUNCH(device, max_pool2d_forward, in[0], c.params, out[0], out[1]);
          },
          {x}, {garbage(shape, image), garbage(shape, place)}, kSameOrder);
      Tensor index = empty(shape, place), largest = for_cpu(empty(shape, image));
      cpu::max_pool2d_forward(for_cpu(x), c.params, largest, index);
      expect_like_cpu(
          "max_pool2d backward " + what,
          [&](Device device, const Tensors& in, Tensors& out) {
            MILLRACE_LAUNCH(device, max_pool2d_backward, in[0], in[1], c.params, out[0]);
          },
          {Draw(seed).tensor(shape, image), index}, {garbage(c.x, image)}, kSameOrder);
    }
  }
}

TEST_F(CudaPool, MeansAreTheCpus) {
  std::uint64_t seed = 200;
  for (const PoolCase& c : kPoolCases) {
    for (DType dtype : kActivations) {
      const std::string what = fmt::format("{} {} seed {}", dtype, c.x, ++seed);
      const TensorOptions image{.dtype = dtype, .format = kLast};
      const Shape shape{c.x[0], c.x[1], c.out.height, c.out.width};
      Draw draw(seed);
      expect_like_cpu(
          "avg_pool2d " + what,
          [&](Device device, const Tensors& in, Tensors& out) {
            MILLRACE_LAUNCH(device, avg_pool2d_forward, in[0], c.params, out[0]);
          },
          {draw.tensor(c.x, image)}, {garbage(shape, image)}, kSameOrder);
      expect_like_cpu(
          "avg_pool2d backward " + what,
          [&](Device device, const Tensors& in, Tensors& out) {
            MILLRACE_LAUNCH(device, avg_pool2d_backward, in[0], c.params, out[0]);
          },
          {draw.tensor(shape, image)}, {garbage(c.x, image)}, kShares);
    }
  }
}

TEST_F(CudaPool, PaddingIsTheCpus) {
  std::uint64_t seed = 400;
  for (const Shape& shape : {Shape{2, 19, 5, 6}, Shape{3, 8, 5, 5}, Shape{1, 3, 6, 5}, Shape{0, 8, 5, 5}}) {
    for (const Pad2d& pad : {Pad2d{2, 2, 2, 2}, Pad2d{0, 3, 1, 0}, Pad2d{4, 4, 4, 4}, Pad2d{}}) {
      for (PadMode mode : {PadMode::zero, PadMode::reflect}) {
        for (DType dtype : kActivations) {
          const std::string what = fmt::format("{} {} pad {} {} {} {} seed {}", dtype, shape, pad.left,
                                               pad.right, pad.top, pad.bottom, ++seed);
          const TensorOptions image{.dtype = dtype, .format = kLast};
          const Shape padded{shape[0], shape[1], shape[2] + pad.top + pad.bottom,
                             shape[3] + pad.left + pad.right};
          Draw draw(seed);
          expect_like_cpu(
              "pad2d " + what,
              [&](Device device, const Tensors& in, Tensors& out) {
                MILLRACE_LAUNCH(device, pad2d_forward, in[0], pad, mode, out[0]);
              },
              {draw.tensor(shape, image)}, {garbage(padded, image)}, kSameOrder);
          expect_like_cpu(
              "pad2d backward " + what,
              [&](Device device, const Tensors& in, Tensors& out) {
                MILLRACE_LAUNCH(device, pad2d_backward, in[0], pad, mode, out[0]);
              },
              {draw.tensor(padded, image)}, {garbage(shape, image)}, kSameOrder);
        }
      }
    }
  }
}

TEST_F(CudaPool, SizesBeyondTheArithmeticAreErrors) {
  const Tensor x = zeros({1, 1, 2, 2}, {.device = kGpu, .format = kLast});
  Tensor out = zeros({1, 1, 1, 1}, {.device = kGpu, .format = kLast});
  const Pool2dOptions params{.kernel = std::int64_t{1} << 40, .stride = 1, .padding = std::int64_t{1} << 39};
  EXPECT_THROW(MILLRACE_LAUNCH(kGpu, avg_pool2d_forward, x, params, out), InputError);
}

}  // namespace
}  // namespace millrace
