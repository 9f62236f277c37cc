#include "tensor/kernels/matmul.h"

#include "on_cuda.h"
#include "tensor/gpu/arithmetic.h"
#include "tensor/kernels/launch.h"

namespace millrace {
namespace {

using test::kGpu;
using test::moved;
using test::sample;
using test::values;

class CudaMatmul : public test::CudaTest {};

enum class Order { plain, transposed, gapped };

/// A matrix (or several) of the given size whose memory lies in the given order.
Tensor matrix(const Shape& shape, Order order, DType dtype, std::mt19937_64& engine) {
  Shape stored = shape;
  if (order == Order::transposed) {
    std::swap(stored[shape.size() - 1], stored[shape.size() - 2]);
    return sample(stored, dtype, engine).transpose(-1, -2);
  }
  if (order == Order::gapped) {
    stored[shape.size() - 1] *= 2;
    return sample(stored, dtype, engine).slice(-1, 0, stored[shape.size() - 1], 2);
  }
  return sample(stored, dtype, engine);
}

/// Sums of eighths' products are exact in f32 in any order, so the result is rounded once; twice where a bias
/// that no algorithm adds is added behind the product.
void expect_product(const Tensor& a, const Tensor& b, const Tensor& bias, const Shape& shape, DType dtype) {
  Tensor expected = empty(shape, {.dtype = DType::f64});
  cpu::matmul(a.to(DType::f64), b.to(DType::f64), bias.defined() ? bias.to(DType::f64) : bias, expected);
  Tensor out = empty(shape, {.dtype = dtype, .device = kGpu});
  MILLRACE_LAUNCH(kGpu, matmul, moved(a), moved(b), bias.defined() ? moved(bias) : bias, out);
  test::expect_close(out, expected.to(dtype), bias.defined() ? test::rounded(dtype, 1) : 0,
                     fmt::format("{} {} x {} in {}", a.dtype(), a.shape(), b.shape(), dtype));
}
void expect_product(const Tensor& a, const Tensor& b, const Tensor& bias, const Shape& shape) {
  expect_product(a, b, bias, shape, a.dtype());
}

TEST_F(CudaMatmul, all_orders_types_and_sizes_agree_with_the_cpu) {
  std::mt19937_64 engine = test::random_engine();
  const std::int64_t sizes[][3] = {{1, 1, 1}, {1, 7, 5}, {9, 1, 4}, {16, 24, 8}, {33, 10, 65}};
  for (const DType dtype : test::kFloatingTypes) {
    for (const auto& [m, n, k] : sizes) {
      for (const Order left : {Order::plain, Order::transposed, Order::gapped}) {
        for (const Order right : {Order::plain, Order::transposed}) {
          const Tensor bias = sample({n}, dtype, engine);
          expect_product(matrix({m, k}, left, dtype, engine), matrix({k, n}, right, dtype, engine), Tensor(),
                         {m, n});
          expect_product(matrix({m, k}, left, dtype, engine), matrix({k, n}, right, dtype, engine), bias,
                         {m, n});
          expect_product(matrix({3, m, k}, left, dtype, engine), matrix({3, k, n}, right, dtype, engine),
                         Tensor(), {3, m, n});
        }
      }
    }
  }
}

/// They share strides and alignment, so that what was chosen for one must not be taken for another.
TEST_F(CudaMatmul, parts_of_one_memory_have_products_of_their_own) {
  std::mt19937_64 engine = test::random_engine();
  const Tensor left = sample({3, 8, 8}, DType::f32, engine), right = sample({3, 8, 8}, DType::f32, engine);
  const auto part = [](const Tensor& x, std::int64_t rows, std::int64_t columns, bool transposed) {
    return transposed ? x.narrow(1, 0, columns).narrow(2, 0, rows).transpose(1, 2)
                      : x.narrow(1, 0, rows).narrow(2, 0, columns);
  };
  for (const auto& [left_transposed, right_transposed] :
       {std::pair{false, false}, {false, true}, {true, false}}) {
    for (std::int64_t sizes = 0; sizes < 27; ++sizes) {
      const std::int64_t m = 3 + sizes % 3, k = 3 + sizes / 3 % 3, n = 3 + sizes / 9;
      const Tensor a = part(left, m, k, left_transposed), b = part(right, k, n, right_transposed);
      expect_product(a, b, Tensor(), {3, m, n});
      expect_product(a.narrow(0, 0, 2), b.narrow(0, 0, 2), Tensor(), {2, m, n});
      expect_product(a.select(0, 0), b.select(0, 0), Tensor(), {m, n});
    }
  }
}

/// As gradients of f32 weights are made of half activations, and their gradients.
TEST_F(CudaMatmul, half_matrices_have_an_f32_product) {
  std::mt19937_64 engine = test::random_engine();
  const std::int64_t sizes[][3] = {{1, 1, 1}, {1, 7, 5}, {9, 1, 4}, {16, 24, 8}, {33, 10, 65}, {10, 84, 1}};
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const auto& [m, n, k] : sizes) {
      for (const Order left : {Order::plain, Order::transposed, Order::gapped}) {
        const Tensor a = matrix({m, k}, left, dtype, engine), b = matrix({k, n}, Order::plain, dtype, engine);
        expect_product(a, b, Tensor(), {m, n}, DType::f32);
        expect_product(a, b, sample({n}, DType::f32, engine), {m, n}, DType::f32);
        expect_product(a, b, Tensor(), {m, n});
        expect_product(matrix({3, m, k}, left, dtype, engine),
                       matrix({3, k, n}, Order::transposed, dtype, engine), Tensor(), {3, m, n}, DType::f32);
      }
    }
    Tensor zero = full({2, 3}, 5, {.device = kGpu});
    const TensorOptions options{.dtype = dtype, .device = kGpu};
    MILLRACE_LAUNCH(kGpu, matmul, empty({2, 0}, options), empty({0, 3}, options), Tensor(), zero);
    EXPECT_EQ(values(zero.to(kCpu)), std::vector<double>(6, 0));
  }
}

TEST_F(CudaMatmul, an_f32_bias_meets_half_types) {
  std::mt19937_64 engine = test::random_engine();
  for (const DType dtype : {DType::bf16, DType::f16}) {
    expect_product(sample({6, 8}, dtype, engine), sample({8, 10}, dtype, engine),
                   sample({10}, DType::f32, engine), {6, 10});
  }
}

/// One after the other, since the algorithm that is chosen for the first is used for the others.
TEST_F(CudaMatmul, a_bias_may_begin_anywhere) {
  std::mt19937_64 engine = test::random_engine();
  for (const DType dtype : test::kFloatingTypes) {
    const Tensor many = sample({64}, dtype, engine);
    for (const std::int64_t first : {0, 1, 2, 31}) {
      expect_product(sample({16, 8}, dtype, engine), sample({8, 32}, dtype, engine),
                     many.narrow(0, first, 32), {16, 32});
    }
  }
}

TEST_F(CudaMatmul, factors_may_begin_anywhere) {
  std::mt19937_64 engine = test::random_engine();
  for (const DType dtype : test::kFloatingTypes) {
    const Tensor many = sample({80}, dtype, engine);
    const auto from = [&](std::int64_t first, const Shape& shape) {
      return many.narrow(0, first, shape[0] * shape[1]).view(shape);
    };
    for (const std::int64_t first : {0, 1, 2, 3}) {
      expect_product(from(first, {5, 8}), from(0, {8, 8}), Tensor(), {5, 8});
      expect_product(from(0, {5, 8}), from(first, {8, 8}), Tensor(), {5, 8});
    }
  }
}

/// Which bf16 does not hold.
TEST_F(CudaMatmul, tf32_keeps_ten_bits) {
  set_gpu_arithmetic({.tf32 = true});
  const Tensor a = full({4, 8}, 1 + 0x1p-9, {.device = kGpu}), b = ones({8, 4}, {.device = kGpu});
  Tensor out = empty({4, 4}, {.device = kGpu});
  MILLRACE_LAUNCH(kGpu, matmul, a, b, Tensor(), out);
  EXPECT_EQ(values(out.to(kCpu)), std::vector<double>(16, 8 * (1 + 0x1p-9)));
  set_gpu_arithmetic({});
}

TEST_F(CudaMatmul, one_matrix_serves_all_batches) {
  std::mt19937_64 engine = test::random_engine();
  const Tensor one = sample({1, 5, 6}, DType::f32, engine);
  const Tensor many = sample({3, 6, 4}, DType::f32, engine);
  Tensor out = empty({3, 5, 4}, {.device = kGpu}), expected = empty({3, 5, 4});
  MILLRACE_LAUNCH(kGpu, matmul, one.to(kGpu).expand({3, 5, 6}), many.to(kGpu), Tensor(), out);
  cpu::matmul(one.expand({3, 5, 6}), many, Tensor(), expected);
  EXPECT_EQ(values(out.to(kCpu)), values(expected));  // exact: eighths
}

TEST_F(CudaMatmul, one_row_column_or_number_serves_the_whole_matrix) {
  std::mt19937_64 engine = test::random_engine();
  for (const DType dtype : test::kFloatingTypes) {
    for (const auto& [m, n, k] : {std::array<std::int64_t, 3>{5, 4, 6}, {6, 3, 2}, {1, 7, 5}, {9, 1, 4}}) {
      for (const bool one_row : {false, true}) {
        for (const bool one_column : {false, true}) {
          const auto expanded = [&](std::int64_t rows, std::int64_t columns) {
            return sample({one_row ? 1 : rows, one_column ? 1 : columns}, dtype, engine)
                .expand({rows, columns});
          };
          expect_product(expanded(m, k), sample({k, n}, dtype, engine), Tensor(), {m, n});
          expect_product(sample({m, k}, dtype, engine), expanded(k, n), Tensor(), {m, n});
          expect_product(expanded(m, k), expanded(k, n), Tensor(), {m, n});
        }
      }
    }
  }
}

TEST_F(CudaMatmul, empty_sums_and_empty_results) {
  Tensor out = full({2, 3}, 5, {.device = kGpu});
  const Tensor bias = tensor({1, 2, 3}).to(kGpu);
  MILLRACE_LAUNCH(kGpu, matmul, empty({2, 0}, {.device = kGpu}), empty({0, 3}, {.device = kGpu}), bias, out);
  EXPECT_EQ(values(out.to(kCpu)), (std::vector<double>{1, 2, 3, 1, 2, 3}));
  Tensor none = empty({0, 3}, {.device = kGpu});
  MILLRACE_LAUNCH(kGpu, matmul, empty({0, 4}, {.device = kGpu}), empty({4, 3}, {.device = kGpu}), bias, none);
}

TEST_F(CudaMatmul, what_f16_cannot_hold_is_infinite) {
  const Tensor x = full({4, 64}, 100, {.dtype = DType::f16, .device = kGpu});
  Tensor out = empty({4, 4}, {.dtype = DType::f16, .device = kGpu});
  MILLRACE_LAUNCH(kGpu, matmul, x, x.t(), Tensor(), out);
  for (const double value : values(out.to(kCpu))) {
    EXPECT_EQ(value, std::numeric_limits<double>::infinity());
  }
}

}  // namespace
}  // namespace millrace
