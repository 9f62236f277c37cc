#include "tensor/kernels/rows.h"

#include "support.h"
#include "tensor/device_memory.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/optimizer.h"
#include "tensor/kernels/random.h"
#include "tensor/ops.h"

namespace millrace {
namespace {

class CudaRows : public CudaNetworkKernels {};

const Shape kShapes[] = {{5, 10}, {3, 1}, {2, 3}, {64, 100}, {2, 1500}, {7, 33}, {0, 10}, {4, 1024}};

/// A CPU adds a row in f64, a warp of a GPU in f32 (eight warps where rows are long).
double roundings_of(const Shape& shape) {
  return test::kPointwise + static_cast<double>(test::chain(shape[1], 32));
}

/// Rows of it: one with a not-a-number, one with infinities.
Tensor logits_of(const Shape& shape, DType dtype, std::uint64_t seed) {
  Tensor x = (Draw(seed).tensor(shape, {}) * 20.0).to(dtype);
  if (shape[0] > 3) {
    x.set({1, 0}, std::numeric_limits<double>::quiet_NaN());
    x.set({2, shape[1] - 1}, -std::numeric_limits<double>::infinity());
    x.set({3, shape[1] / 2}, std::numeric_limits<double>::infinity());
  }
  return x;
}

Tensor labels_of(const Shape& shape) {
  Tensor labels = empty({shape[0]}, {.dtype = DType::i64});
  for (std::int64_t row = 0; row < shape[0]; ++row) {
    labels.data<std::int64_t>()[row] = row * 7 % shape[1];
  }
  return labels;
}

TEST_F(CudaRows, SoftmaxIsTheCpus) {
  std::uint64_t seed = 500;
  for (const Shape& shape : kShapes) {
    for (DType dtype : kActivations) {
      const std::string what = fmt::format("{} {} seed {}", dtype, shape, ++seed);
      const Tensor out = garbage(shape, {.dtype = dtype});
      const Tensor x = logits_of(shape, dtype, seed);
      expect_like_cpu(
          "softmax " + what,
          [](Device device, const Tensors& in, Tensors& out) {
            MILLRACE_LAUNCH(device, softmax, in[0], out[0]);
          },
          {x}, {out}, roundings_of(shape));
      expect_like_cpu(
          "log_softmax " + what,
          [](Device device, const Tensors& in, Tensors& out) {
            MILLRACE_LAUNCH(device, log_softmax, in[0], out[0]);
          },
          {x}, {out}, roundings_of(shape));
      Draw draw(seed);
      const Tensor grad = draw.tensor(shape, {.dtype = dtype}), y = draw.tensor(shape, {.dtype = dtype});
      expect_like_cpu(
          "softmax backward " + what,
          [](Device device, const Tensors& in, Tensors& out) {
            MILLRACE_LAUNCH(device, softmax_backward, in[0], in[1], out[0]);
          },
          {grad, y}, {out}, roundings_of(shape));
      expect_like_cpu(
          "log_softmax backward " + what,
          [](Device device, const Tensors& in, Tensors& out) {
            MILLRACE_LAUNCH(device, log_softmax_backward, in[0], in[1], out[0]);
          },
          {grad, y}, {out}, roundings_of(shape));
    }
  }
}

TEST_F(CudaRows, CrossEntropyIsTheCpus) {
  std::uint64_t seed = 600;
  for (const Shape& shape : kShapes) {
    for (DType dtype : kActivations) {
      for (double smoothing : {0.0, 0.1, 1.0}) {
        const std::string what = fmt::format("{} {} smoothing {} seed {}", dtype, shape, smoothing, ++seed);
        const Tensor labels = labels_of(shape);
        // Probabilities in f32, as autograd has them, and in bf16, whose rounding the loss sees.
        const DType kept = dtype == DType::bf16 && smoothing > 0 ? DType::bf16 : DType::f32;
        expect_like_cpu(
            "cross_entropy " + what,
            [&](Device device, const Tensors& in, Tensors& out) {
              MILLRACE_LAUNCH(device, cross_entropy_forward, in[0], in[1], smoothing, out[0], out[1]);
            },
            {logits_of(shape, dtype, seed), labels},
            {garbage(shape, {.dtype = kept}), garbage({shape[0]}, {})},
            roundings_of(shape) + static_cast<double>(test::chain(shape[1], 32)));
        Draw draw(seed);
        const Tensor log_p = draw.tensor(shape, {}) * 5.0 - 5.0;
        for (const Tensor& grad : {draw.tensor({shape[0]}, {}), draw.tensor({1}, {})}) {
          expect_like_cpu("cross_entropy backward " + what,
                          [&](Device device, const Tensors& in, Tensors& out) {
                            const Tensor each = in[0].size(0) == 1 ? in[0].expand({shape[0]}) : in[0];
                            MILLRACE_LAUNCH(device, cross_entropy_backward, each, in[1], in[2], smoothing,
                                            out[0]);
                          },
                          {grad, log_p, labels}, {garbage(shape, {.dtype = dtype})});
        }
      }
    }
  }
}

TEST_F(CudaRows, ALabelOutOfRangeIsAnErrorWhereTheHostWaits) {
  for (std::int64_t label : {std::int64_t{-1}, std::int64_t{3}, std::int64_t{1} << 40}) {
    Tensor labels = zeros({4}, {.dtype = DType::i64});
    labels.data<std::int64_t>()[2] = label;
    const Tensor logits = zeros({4, 3}, {.device = kGpu}), there = labels.to(kGpu);
    Tensor log_p = empty_like(logits), losses = empty({4}, {.device = kGpu});
    MILLRACE_LAUNCH(kGpu, cross_entropy_forward, logits, there, 0.0, log_p, losses);
    const std::string message = test::input_error([&] { current_stream(kGpu).synchronize(); });
    EXPECT_EQ(message, fmt::format("cross_entropy: row 2 has label {}, expected 0 to 2", label));
    const std::vector<double> kept = test::values(losses.to(kCpu));  // reported once
    EXPECT_TRUE(std::isnan(kept[2]));
    EXPECT_NEAR(kept[3], std::log(3), test::rounded(DType::f32, test::kPointwise) * std::log(3));
  }
}

TEST_F(CudaRows, ACopyToPinnedMemoryLeavesTheErrorToWhoeverWaits) {
  Tensor wrong = zeros({4}, {.dtype = DType::i64});
  wrong.data<std::int64_t>()[1] = 3;
  const Tensor logits = zeros({4, 3}, {.device = kGpu}), labels = wrong.to(kGpu);
  Tensor log_p = empty_like(logits), losses = empty({4}, {.device = kGpu});
  MILLRACE_LAUNCH(kGpu, cross_entropy_forward, logits, labels, 0.0, log_p, losses);
  Event noted;
  noted.record(current_stream(kGpu));
  noted.await();
  Tensor pinned(Storage::allocate_pinned(4 * sizeof(float)), 0, {4}, {1}, DType::f32);
  pinned.copy_(losses);
  const std::string message = test::input_error([&] { current_stream(kGpu).synchronize(); });
  EXPECT_EQ(message, "cross_entropy: row 1 has label 3, expected 0 to 2");
}

TEST_F(CudaRows, DropoutDrawsTheCpusMask) {
  std::uint64_t seed = 700;
  for (const Shape& shape :
       {Shape{1000}, Shape{3, 5}, Shape{2, 8, 5, 7}, Shape{}, Shape{0, 4}, Shape{4, 3, 1, 6}}) {
    for (DType dtype : kActivations) {
      for (MemoryFormat format : {MemoryFormat::row_major, MemoryFormat::channels_last}) {
        for (std::uint64_t first : std::initializer_list<std::uint64_t>{0, 1, 2, 3, (1ULL << 40) + 8}) {
          if (format == MemoryFormat::channels_last && shape.size() != 4) {
            continue;
          }
          const Tensor x = Draw(++seed).tensor(shape, {.dtype = dtype, .format = format});
          expect_like_cpu(
              fmt::format("dropout {} {} first {} seed {}", dtype, shape, first, seed),
              [&](Device device, const Tensors& in, Tensors& out) {
                MILLRACE_LAUNCH(device, dropout, in[0], 0.4, seed * 0x9e3779b97f4a7c15u, first, out[0]);
              },
              {x}, {garbage(shape, {.dtype = dtype, .format = format})}, 0);
        }
      }
    }
  }
}

/// One pass of an optimizer over `states` buffers, from places that are aligned and from others.
template <typename Launch>
void expect_steps_as_the_cpu(const std::string& name, std::size_t states, const Launch& launch) {
  const std::int64_t count = 1003;
  Draw draw(9);
  const Tensor grad = draw.tensor({count}, {});
  Tensors buffers = {draw.tensor({count}, {})};
  for (std::size_t i = 0; i < states; ++i) {
    buffers.push_back(abs(draw.tensor({count}, {})));  // an average of squares is one
  }
  Tensors by_offset;
  for (std::int64_t skip : {0, 1, 2}) {
    const auto part = [&](const Tensor& x) { return x.narrow(0, skip, count - skip); };
    expect_like_cpu(
        fmt::format("{} from {}", name, skip),
        [&](Device device, const Tensors& in, Tensors& out) {
          Tensors parts;
          std::transform(out.begin(), out.end(), std::back_inserter(parts), part);
          launch(device, part(in[0]), parts);
          by_offset.push_back(out[0]);
        },
        {grad}, buffers);
  }
  const Tensor aligned = by_offset[1].to(kCpu), shifted = by_offset[4].to(kCpu);
  EXPECT_TRUE(same_bits(aligned.narrow(0, 1, count - 1).clone(), shifted.narrow(0, 1, count - 1).clone()))
      << name;
}

TEST_F(CudaRows, OptimizersStepAsTheCpuAndTheSameFromAnyAddress) {
  const GradientStep gradient{.gradient_scale = 0.25f, .weight_decay = 5e-4f};
  for (const bool nesterov : {false, true}) {
    const SgdStep step{.gradient = gradient, .learning_rate = 0.1f, .momentum = 0.9f, .nesterov = nesterov};
    expect_steps_as_the_cpu("sgd_step", 1, [&](Device device, const Tensor& g, Tensors& t) {
      MILLRACE_LAUNCH(device, sgd_step, t[0], g, t[1], step);
    });
  }
  const AdamStep adam{.gradient = gradient,
                      .learning_rate = 0.1f,
                      .rate1 = 0.1f,
                      .rate2 = 0.01f,
                      .eps = 1e-6f,
                      .correction = 1.5f,
                      .shrink = 0.9f};
  expect_steps_as_the_cpu("adam_step", 2, [&](Device device, const Tensor& g, Tensors& t) {
    MILLRACE_LAUNCH(device, adam_step, t[0], g, t[1], t[2], adam);
  });
  for (const bool centered : {false, true}) {
    for (const float momentum : {0.0f, 0.9f}) {
      const RmsPropStep step{.gradient = gradient,
                             .learning_rate = 0.1f,
                             .rate = 0.5f,
                             .eps = 0.1f,
                             .momentum = momentum,
                             .centered = centered};
      expect_steps_as_the_cpu("rms_prop_step", 3, [&](Device device, const Tensor& g, Tensors& t) {
        MILLRACE_LAUNCH(device, rms_prop_step, t[0], g, t[1], t[2], t[3], step);
      });
    }
  }
}

}  // namespace
}  // namespace millrace
