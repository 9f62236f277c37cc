#include <gtest/gtest.h>
#include <thread>

#include "base/philox.h"
#include "support.h"
#include "tensor/kernels/matmul.h"
#include "tensor/kernels/optimizer.h"
#include "tensor/kernels/random.h"
#include "tensor/kernels/rows.h"

namespace millrace {
namespace {

/// A random [rows, columns] or [batches, rows, columns], stored transposed when asked.
Tensor matrix(Draw& draw, std::int64_t batches, std::int64_t rows, std::int64_t columns, bool transposed,
              DType dtype) {
  std::vector<double> numbers(static_cast<std::size_t>(std::max<std::int64_t>(batches, 1) * rows * columns));
  for (double& number : numbers) {
    number = is_floating(dtype) ? draw.next() : std::floor(5 * draw.next() + 5);
  }
  Shape shape = transposed ? Shape{columns, rows} : Shape{rows, columns};
  if (batches > 0) {
    shape.insert(0, batches);
  }
  const Tensor made = Draw::filled(numbers, shape, {.dtype = dtype});
  return transposed ? made.transpose(-2, -1) : made;
}

void check_matmul(std::int64_t batches, std::int64_t m, std::int64_t n, std::int64_t k, bool ta, bool tb,
                  DType dtype, DType out_dtype, bool biased, std::uint64_t seed) {
  SCOPED_TRACE(fmt::format("{} x ({} x {} x {}) transposed {} {} {} to {} bias {}, seed {}", batches, m, n, k,
                           ta, tb, dtype, out_dtype, biased, seed));
  Draw draw(seed);
  const Tensor a = matrix(draw, batches, m, k, ta, dtype), b = matrix(draw, batches, k, n, tb, dtype);
  const DType bias_dtype = dtype == DType::bf16 ? DType::f32 : dtype;
  const Tensor bias = biased ? matrix(draw, 0, 1, n, false, bias_dtype).view({n}) : Tensor();
  const auto as = values(a), bs = values(b),
             biases = biased ? values(bias) : std::vector<double>(static_cast<std::size_t>(n));
  Shape shape{m, n};
  if (batches > 0) {
    shape.insert(0, batches);
  }
  std::vector<double> expected;
  for (std::int64_t i = 0; i < shape.numel(); ++i) {
    const std::int64_t row = i / n, column = i % n, batch = row / m;
    double sum = biases[static_cast<std::size_t>(column)];
    for (std::int64_t l = 0; l < k; ++l) {
      sum += as[static_cast<std::size_t>(row * k + l)] *
             bs[static_cast<std::size_t>((batch * k + l) * n + column)];
    }
    expected.push_back(sum);
  }
  Tensor out = garbage(shape, {.dtype = out_dtype});
  cpu::matmul(a, b, bias, out);
  expect_close(out, expected, out_dtype, "out");
}

TEST(NetworkKernelsMatmul, MatchesNaiveLoops) {
  struct Size {
    std::int64_t batches, m, n, k;
  };
  const std::vector<Size> sizes = {{0, 2, 120, 400}, {0, 1, 1, 1},  {0, 5, 1, 7},   {0, 1, 9, 3},
                                   {0, 64, 10, 84},  {3, 7, 5, 11}, {1, 33, 17, 2}, {4, 1, 3, 6}};
  std::uint64_t seed = 80;
  for (const Size& s : sizes) {
    for (int form = 0; form < 8; ++form) {
      const bool ta = form & 1, tb = form & 2, biased = form & 4;
      for (DType dtype : {DType::f32, DType::f64, DType::i32, DType::i64}) {
        check_matmul(s.batches, s.m, s.n, s.k, ta, tb, dtype, dtype, biased, seed++);
      }
      check_matmul(s.batches, s.m, s.n, s.k, ta, tb, DType::bf16, DType::bf16, biased, seed++);
      check_matmul(s.batches, s.m, s.n, s.k, ta, tb, DType::bf16, DType::f32, biased, seed++);
    }
  }
}

TEST(NetworkKernelsMatmul, OddStrides) {
  Draw draw(9);
  for (DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    const Tensor wide = draw.tensor({6, 10}, {.dtype = dtype}),
                 b = draw.tensor({1, 4}, {.dtype = dtype}).expand({5, 4});
    const Tensor a = wide.slice(1, 0, 10, 2);  // every other column
    Tensor out = garbage({6, 4}, {.dtype = dtype});
    cpu::matmul(a, b, {}, out);
    const auto as = values(a), bs = values(b);
    std::vector<double> expected(24);
    for (std::size_t i = 0; i < 24; ++i) {
      for (std::size_t l = 0; l < 5; ++l) {
        expected[i] += as[i / 4 * 5 + l] * bs[l * 4 + i % 4];
      }
    }
    expect_close(out, expected, dtype, "out");
  }
}

TEST(NetworkKernelsMatmul, EmptySumsAndEmptyResults) {
  Tensor out = garbage({3, 2}, {});
  cpu::matmul(empty({3, 0}), empty({0, 2}), full({2}, 7), out);
  EXPECT_EQ(values(out), std::vector<double>(6, 7.0));
  Tensor none = empty({0, 2});
  cpu::matmul(empty({0, 4}), empty({4, 2}), {}, none);
}

TEST(NetworkKernelsSoftmax, MatchesDouble) {
  for (std::int64_t columns : {1, 10, 37, 64, 400, 1500}) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      Draw draw(static_cast<std::uint64_t>(columns));
      const std::int64_t rows = 5;
      std::vector<double> numbers(static_cast<std::size_t>(rows * columns));
      for (double& number : numbers) {
        number = 100 + 30 * draw.next();
      }
      const Tensor x = Draw::filled(numbers, {rows, columns}, {.dtype = dtype});
      const Tensor grad = draw.tensor({rows, columns}, {.dtype = dtype});
      const auto xs = values(x), gs = values(grad);
      std::vector<double> p(xs.size()), log_p(xs.size());
      for (std::size_t row = 0; row < 5; ++row) {
        const std::size_t first = row * static_cast<std::size_t>(columns),
                          last = first + static_cast<std::size_t>(columns);
        double sum = 0;
        for (std::size_t i = first; i < last; ++i) {
          sum += std::exp(xs[i] - 100);
        }
        for (std::size_t i = first; i < last; ++i) {
          log_p[i] = xs[i] - 100 - std::log(sum);
          p[i] = std::exp(log_p[i]);
        }
      }
      Tensor out = garbage(x.shape(), {.dtype = dtype}), log_out = garbage(x.shape(), {.dtype = dtype});
      cpu::softmax(x, out);
      cpu::log_softmax(x, log_out);
      expect_close(out, p, dtype, "softmax");
      expect_close(log_out, log_p, dtype, "log_softmax");
      // The gradients from the outputs as stored.
      const auto stored = values(out), log_stored = values(log_out);
      std::vector<double> expected(xs.size()), log_expected(xs.size());
      for (std::size_t i = 0; i < xs.size(); ++i) {
        const std::size_t first = i / static_cast<std::size_t>(columns) * static_cast<std::size_t>(columns);
        double dot = 0, sum = 0;
        for (std::size_t j = first; j < first + static_cast<std::size_t>(columns); ++j) {
          dot += gs[j] * stored[j];
          sum += gs[j];
        }
        expected[i] = stored[i] * (gs[i] - dot);
        log_expected[i] = gs[i] - std::exp(log_stored[i]) * sum;
      }
      if (columns == 1) {
        continue;
      }  // gradients are exactly zero: no scale to compare with
      Tensor grad_x = garbage(x.shape(), {.dtype = dtype});
      cpu::softmax_backward(grad, out, grad_x);
      expect_close(grad_x, expected, dtype, "softmax_backward");
      cpu::log_softmax_backward(grad, log_out, grad_x);
      expect_close(grad_x, log_expected, dtype, "log_softmax_backward");
    }
  }
}

TEST(NetworkKernelsCrossEntropy, MatchesDouble) {
  const std::int64_t rows = 7, classes = 10;
  for (double smoothing : {0.0, 0.2}) {
    for (bool one_gradient : {true, false}) {
      Draw draw(11);
      const Tensor logits = draw.tensor({rows, classes}, {});
      Tensor labels = empty({rows}, {.dtype = DType::i64});
      for (std::int64_t row = 0; row < rows; ++row) {
        labels.set({row}, static_cast<double>(row * 3 % classes));
      }
      const Tensor grad = one_gradient ? draw.tensor({1}, {}).expand({rows}) : draw.tensor({rows}, {});
      const auto xs = values(logits), gs = values(grad);
      std::vector<double> losses(7), grads(70);
      for (std::size_t row = 0; row < 7; ++row) {
        double sum = 0;
        for (std::size_t c = 0; c < 10; ++c) {
          sum += std::exp(xs[row * 10 + c]);
        }
        for (std::size_t c = 0; c < 10; ++c) {
          const double target = smoothing / 10 + (c == row * 3 % 10 ? 1 - smoothing : 0);
          losses[row] -= target * (xs[row * 10 + c] - std::log(sum));
          grads[row * 10 + c] = gs[row] * (std::exp(xs[row * 10 + c]) / sum - target);
        }
      }
      Tensor log_p = garbage({rows, classes}, {}), got = garbage({rows}, {}),
             got_grad = garbage({rows, classes}, {});
      cpu::cross_entropy_forward(logits, labels, smoothing, log_p, got);
      cpu::cross_entropy_backward(grad, log_p, labels, smoothing, got_grad);
      expect_close(got, losses, DType::f32, "losses");
      expect_close(got_grad, grads, DType::f32, "grad_logits");
    }
  }
}

TEST(NetworkKernelsCrossEntropy, LabelOutOfRange) {
  Tensor log_p = empty({1, 3}), losses = empty({1});
  try {
    cpu::cross_entropy_forward(zeros({1, 3}), full({1}, 3, {.dtype = DType::i64}), 0, log_p, losses);
    FAIL() << "took label 3 of 3 classes";
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), "cross_entropy: row 0 has label 3, expected 0 to 2");
  }
}

TEST(NetworkKernelsDropout, MaskIsPhiloxAtTheRowMajorPlace) {
  const double p = 0.3;
  const std::uint64_t key = 0x123456789abcdefull, first = 6;
  for (MemoryFormat format : {MemoryFormat::row_major, MemoryFormat::channels_last}) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      Draw draw(1);
      const Tensor x = draw.tensor({3, 5, 4, 7}, {.dtype = dtype, .format = format});
      Tensor out = garbage(x.shape(), {.dtype = dtype, .format = format});
      cpu::dropout(x, p, key, first, out);
      const auto xs = values(x);
      std::vector<double> expected(xs.size());
      std::size_t kept = 0;
      for (std::size_t i = 0; i < xs.size(); ++i) {
        const std::uint64_t place = first + i;
        const auto words =
            philox({static_cast<std::uint32_t>(place / 4), 0, 0, 0}, {0x89abcdefu, 0x1234567u});
        if (to_unit_float(words[place % 4]) >= static_cast<float>(p)) {
          expected[i] = xs[i] / (1 - p);
          ++kept;
        }
      }
      expect_close(out, expected, dtype, "out");
      EXPECT_NEAR(static_cast<double>(kept) / static_cast<double>(xs.size()), 1 - p, 0.1);
    }
  }
}

TEST(NetworkKernelsSgd, FollowsPyTorchsRule) {
  const std::size_t count = 1003;
  for (bool nesterov : {false, true}) {
    Draw draw(13);
    Tensor weight = draw.tensor({1003}, {}), momentum = zeros({1003});
    std::vector<double> w = values(weight), m(count);
    for (int step = 0; step < 3; ++step) {
      const Tensor grad = draw.tensor({1003}, {});
      const auto g = values(grad);
      const SgdStep rule{{0.5f, 5e-2f}, 0.1f, 0.9f, nesterov};
      for (std::size_t i = 0; i < count; ++i) {
        const double slope = 0.5 * g[i] + 5e-2 * w[i];
        m[i] = 0.9 * m[i] + slope;
        w[i] -= 0.1 * (nesterov ? slope + 0.9 * m[i] : m[i]);
      }
      cpu::sgd_step(weight, grad, momentum, rule);
    }
    expect_close(weight, w, DType::f32, "weight");
    expect_close(momentum, m, DType::f32, "momentum");
  }
}

}  // namespace
}  // namespace millrace
