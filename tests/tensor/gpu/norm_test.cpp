#include "tensor/kernels/norm.h"

#include "support.h"
#include "tensor/kernels/launch.h"

namespace millrace {
namespace {

class CudaNorm : public CudaNetworkKernels {};

// Additions in a row of a channel's sum. A CPU adds 64 rows; on a GPU a thread adds 16 or fewer of as few
// rows as there are here, and 256 threads meet in a tree. What follows is added in f64.
constexpr int kCpuSum = 64, kGpuSum = 16 + 8;
/// Welford's update rounds the distance, its share, the mean and the product.
constexpr int kGpuMoments = 4 * kGpuSum;

struct NormCase {
  Shape shape;
  double offset = 1;  // a mean as large as what is added; a larger one beside a small spread is what cancels
};

const NormCase kNormCases[] = {{{4, 64, 8, 8}},  {{3, 7, 5, 6}},        {{2, 83, 3, 3}},     {{9, 5}},
                               {{5, 16, 1, 1}},  {{2, 24, 33, 31}, 10}, {{130, 100}},        {{1, 3, 3, 2}},
                               {{6, 1, 40, 40}}, {{3, 264, 5, 5}, 10},  {{1, 8, 1, 1}},      {{2, 520, 2, 2}},
                               {{0, 5, 3, 3}},   {{0, 8, 3, 3}},        {{40, 8, 32, 32}, 3}};

TensorOptions options_of(const Shape& shape, DType dtype) {
  return {.dtype = dtype,
          .format = shape.size() == 4 ? MemoryFormat::channels_last : MemoryFormat::row_major};
}

Tensor around(const NormCase& c, DType dtype, std::uint64_t seed) {
  Draw draw(seed);
  std::vector<double> numbers(static_cast<std::size_t>(c.shape.numel()));
  for (double& number : numbers) {
    number = c.offset + draw.next();
  }
  return Draw::filled(numbers, c.shape, options_of(c.shape, dtype));
}

TEST_F(CudaNorm, StatisticsAreTheCpus) {
  std::uint64_t seed = 60;
  for (const NormCase& c : kNormCases) {
    for (DType dtype : kActivations) {
      expect_like_cpu(
          fmt::format("batch_norm statistics {} {} seed {}", dtype, c.shape, ++seed),
          [&](Device device, const Tensors& in, Tensors& out) {
            MILLRACE_LAUNCH(device, batch_norm_statistics, in[0], out[0], out[1]);
          },
          {around(c, dtype, seed)}, {garbage({c.shape[1]}, {}), garbage({c.shape[1]}, {})},
          kCpuSum + kGpuMoments);
    }
  }
}

TEST_F(CudaNorm, VarianceSurvivesALargeMean) {
  for (double offset : {1e3, 1e5}) {
    const Tensor x = around({{20000, 4}, offset}, DType::f32, 5);
    const std::vector<double> xs = test::values(x);
    std::vector<double> means(4), variances(4);
    for (std::size_t i = 0; i < xs.size(); ++i) {
      means[i % 4] += xs[i] / 20000;
    }
    for (std::size_t i = 0; i < xs.size(); ++i) {
      variances[i % 4] += std::pow(xs[i] - means[i % 4], 2) / 20000;
    }
    Tensor mean = garbage({4}, {}).to(kGpu), var = garbage({4}, {}).to(kGpu);
    MILLRACE_LAUNCH(kGpu, batch_norm_statistics, x.to(kGpu), mean, var);
    const double bound = test::rounded(DType::f32, kGpuMoments);
    expect_within(mean.to(kCpu), means, bound, "mean");
    expect_within(var.to(kCpu), variances, bound, "var");
  }
}

TEST_F(CudaNorm, ForwardAndBackwardAreTheCpus) {
  std::uint64_t seed = 90;
  for (const NormCase& c : kNormCases) {
    for (DType dtype : kActivations) {
      for (int form = 0; form < 4; ++form) {
        const bool training = form % 2 == 0, affine = form < 2;
        const std::string what =
            fmt::format("{} {} training {} affine {} seed {}", dtype, c.shape, training, affine, ++seed);
        const Shape vector{c.shape[1]};
        const TensorOptions image = options_of(c.shape, dtype);
        Draw draw(seed);
        const Tensor x = around(c, dtype, seed), grad = draw.tensor(c.shape, image);
        const Tensor mean = draw.tensor(vector, {}) + c.offset, var = draw.tensor(vector, {}) + 1.5;
        const Tensor weight = affine ? draw.tensor(vector, {}) : Tensor(),
                     bias = affine ? draw.tensor(vector, {}) : Tensor();
        expect_like_cpu("batch_norm " + what,
                        [&](Device device, const Tensors& in, Tensors& out) {
                          MILLRACE_LAUNCH(device, batch_norm_apply, in[0], in[1], in[2], 1e-5, in[3], in[4],
                                          out[0]);
                        },
                        {x, mean, var, weight, bias}, {garbage(c.shape, image)});
        const Tensor vector_out = affine ? garbage(vector, {}) : Tensor();
        expect_like_cpu(
            "batch_norm backward " + what,
            [&](Device device, const Tensors& in, Tensors& out) {
              MILLRACE_LAUNCH(device, batch_norm_backward, in[0], in[1], in[2], in[3], 1e-5, in[4], training,
                              out[0], out[1], out[2]);
            },
            {grad, x, mean, var, weight}, {garbage(c.shape, image), vector_out, vector_out},
            kCpuSum + kGpuSum + test::kPointwise);
      }
    }
  }
}

TEST_F(CudaNorm, TheGradientMayBeWrittenOverItsSource) {
  const NormCase c{{4, 24, 9, 9}};
  for (DType dtype : kActivations) {
    Draw draw(7);
    const Tensor x = around(c, dtype, 8);
    const Shape vector{24};
    expect_like_cpu(
        fmt::format("batch_norm backward in place {}", dtype),
        [&](Device device, const Tensors& in, Tensors& out) {
          MILLRACE_LAUNCH(device, batch_norm_backward, out[0], in[0], in[1], in[2], 1e-5, in[3], true, out[0],
                          out[1], out[2]);
        },
        {x, draw.tensor(vector, {}), draw.tensor(vector, {}) + 1.5, draw.tensor(vector, {})},
        {draw.tensor(c.shape, options_of(c.shape, dtype)), garbage(vector, {}), garbage(vector, {})},
        kCpuSum + kGpuSum + test::kPointwise);
  }
}

}  // namespace
}  // namespace millrace
