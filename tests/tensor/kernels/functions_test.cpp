#include <cmath>
#include <functional>
#include <gtest/gtest.h>

#include "tensor/kernels/elementwise.h"
#include "tests/tensor/sample.h"

namespace millrace {
namespace {

/// Arguments of all magnitudes and both signs, and an even net over the range where results bend.
std::vector<float> arguments() {
  std::vector<float> numbers = {0.0f,    -0.0f, 1e-30f, -1e-30f,   88.7f,     -87.4f,
                                -103.5f, 1e30f, -1e30f, HUGE_VALF, -HUGE_VALF};
  for (int i = -200000; i <= 200000; ++i) {
    numbers.push_back(static_cast<float>(i) * 1e-4f);
  }
  for (float size = 1e-12f; size < 90; size *= 1.01f) {
    numbers.push_back(size);
    numbers.push_back(-size);
  }
  return numbers;
}

struct FunctionCase {
  UnaryOp op;
  const char* name;
  std::function<double(double)> value;
  std::function<double(double)> slope;
  double relative;  ///< Error allowed, relative and absolute, in f32.
  double absolute;
};

double distribution(double v) { return 0.5 * std::erfc(-v / std::sqrt(2.0)); }
double density(double v) { return std::exp(-0.5 * v * v) / std::sqrt(2 * M_PI); }
double logistic(double v) { return 1 / (1 + std::exp(-v)); }

const FunctionCase kFunctionCases[] = {
    {UnaryOp::exp, "exp", [](double v) { return std::exp(v); }, [](double v) { return std::exp(v); }, 2.5e-7,
     1e-44},
    {UnaryOp::tanh, "tanh", [](double v) { return std::tanh(v); },
     [](double v) { return 1 - std::tanh(v) * std::tanh(v); }, 2e-7, 0},
    {UnaryOp::sigmoid, "sigmoid", logistic, [](double v) { return logistic(v) * (1 - logistic(v)); }, 3.5e-7,
     1e-38},
    {UnaryOp::gelu, "gelu", [](double v) { return std::isinf(v) ? std::max(v, 0.0) : v * distribution(v); },
     [](double v) { return distribution(v) + (std::isinf(v) ? 0 : v * density(v)); }, 2e-7, 2e-7},
    {UnaryOp::relu, "relu", [](double v) { return std::max(v, 0.0); },
     [](double v) { return v > 0 ? 1.0 : 0.0; }, 0, 0},
    {UnaryOp::abs, "abs", [](double v) { return std::abs(v); },
     [](double v) { return v > 0   ? 1.0
                           : v < 0 ? -1.0
                                   : 0.0; }, 0, 0},
};

TEST(Functions, AreAccurateOverTheWholeRange) {
  std::vector<float> numbers = arguments();
  const Tensor x = from_blob(numbers.data(), {static_cast<std::int64_t>(numbers.size())});
  for (const FunctionCase& c : kFunctionCases) {
    Tensor out = empty_like(x), grad_x = empty_like(x);
    cpu::unary(c.op, x, out);
    cpu::unary_backward(c.op, ones(x.shape()), x, out, grad_x);
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      const double v = numbers[i], expected = c.value(v), got = out.data<float>()[i];
      if (std::abs(v) < 1e20 || c.op != UnaryOp::gelu) {
        if (got != static_cast<float>(expected)) {
          ASSERT_NEAR(got, expected, c.relative * std::abs(expected) + c.absolute)
              << c.name << "(" << v << ")";
        }
        const double slope = c.slope(v);
        if (grad_x.data<float>()[i] != static_cast<float>(slope)) {
          ASSERT_NEAR(grad_x.data<float>()[i], slope, 1e-6 * std::max(std::abs(slope), 0.5))
              << c.name << "'(" << v << ")";
        }
      }
    }
  }
}

TEST(Functions, GeluKeepsTheDigitsOfItsTail) {
  for (double v = -9; v < 0; v += 0.01) {
    Tensor out = empty({});
    cpu::unary(UnaryOp::gelu, full({}, v), out);
    const double exact = static_cast<double>(static_cast<float>(v)) * distribution(static_cast<float>(v));
    EXPECT_NEAR(out.item() / exact, 1, 1e-5) << v;
  }
}

/// An element's value does not depend on its place in a vector, on strides or on what lies beside it.
TEST(Functions, ValuesDoNotDependOnTheLayout) {
  auto engine = test::random_engine();
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const FunctionCase& c : kFunctionCases) {
      const Tensor wide = test::sample({7, 93}, dtype, engine);
      const Tensor x = wide.slice(1, 1, 93, 3);
      Tensor out = empty(x.shape(), {.dtype = dtype});
      cpu::unary(c.op, x, out);
      for (std::int64_t i = 0; i < 7; ++i) {
        for (std::int64_t j = 0; j < x.size(1); ++j) {
          Tensor one = empty({}, {.dtype = dtype});
          cpu::unary(c.op, full({}, x.at({i, j}), {.dtype = dtype}), one);
          ASSERT_EQ(one.item(), out.at({i, j})) << c.name;
        }
      }
    }
  }
}

TEST(Functions, BackwardMatchesItsFormulaInEveryType) {
  auto engine = test::random_engine();
  const std::pair<UnaryOp, std::function<double(double)>> more[] = {
      {UnaryOp::log, [](double v) { return 1 / v; }},
      {UnaryOp::sqrt, [](double v) { return 0.5 / std::sqrt(v); }},
      {UnaryOp::neg, [](double) { return -1; }}};
  for (DType dtype : test::kFloatingTypes) {
    const Tensor x = test::sample({3, 35}, dtype, engine);
    const Tensor grad = test::sample({35, 3}, dtype, engine).t();  // strides differ from those of x
    const auto check = [&](UnaryOp op, const std::function<double(double)>& slope, const Tensor& at) {
      Tensor out = empty_like(at), grad_x = empty_like(at);
      cpu::unary(op, at, out);
      cpu::unary_backward(op, grad, at, out, grad_x);
      const std::vector<double> got = test::values(grad_x), g = test::values(grad), v = test::values(at);
      for (std::size_t i = 0; i < got.size(); ++i) {
        ASSERT_NEAR(got[i], g[i] * slope(v[i]),
                    8 * test::epsilon(dtype) * std::abs(g[i]) * std::max(1.0, std::abs(slope(v[i]))) + 1e-7)
            << static_cast<int>(op) << " " << name_of(dtype) << " at " << v[i];
      }
    };
    for (const FunctionCase& c : kFunctionCases) {
      check(c.op, c.slope, x);
    }
    for (const auto& [op, slope] : more) {
      check(op, slope, abs(x) + 0.5);
    }
  }
}

}  // namespace
}  // namespace millrace
