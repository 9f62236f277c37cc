#pragma once

#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <vector>

#include "base/philox.h"
#include "tensor/tensor.h"
#include "tests/tensor/sample.h"

/// What the tests of the network kernels share: random tensors, values in row-major order, comparison.
namespace millrace {

/// Uniform values in [-1, 1), rounded to the tensor's type.
class Draw {
 public:
  explicit Draw(std::uint64_t seed) : seed_(seed) {}
  double next() {
    const std::uint64_t place = next_++;
    return 2.0 * to_unit_float(static_cast<std::uint32_t>(mix(seed_, place))) - 1.0;
  }
  Tensor tensor(const Shape& shape, const TensorOptions& options) {
    std::vector<double> numbers(static_cast<std::size_t>(shape.numel()));
    for (double& number : numbers) {
      number = next();
    }
    return filled(numbers, shape, options);
  }
  static Tensor filled(std::vector<double>& numbers, const Shape& shape, const TensorOptions& options) {
    Tensor made = empty(shape, options);
    made.copy_(from_blob(numbers.data(), shape, {.dtype = DType::f64}).to(options.dtype));
    return made;
  }

 private:
  std::uint64_t seed_;
  std::uint64_t next_ = 0;
};

using test::values;

/// An output full of what must be overwritten.
inline Tensor garbage(const Shape& shape, const TensorOptions& options) {
  return is_floating(options.dtype) ? full(shape, std::numeric_limits<double>::quiet_NaN(), options)
                                    : full(shape, 111, options);
}

/// `tolerance` is a share of the largest value.
inline void expect_within(const Tensor& got, const std::vector<double>& expected, double tolerance,
                          const char* what) {
  const std::vector<double> found = values(got);
  ASSERT_EQ(found.size(), expected.size()) << what;
  double largest = 0;
  for (double value : expected) {
    largest = std::max(largest, std::abs(value));
  }
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_LE(std::abs(found[i] - expected[i]), tolerance * largest)
        << what << "[" << i << "]: got " << found[i] << ", expected " << expected[i];
  }
}

/// Within 1e-5 of the largest value, or the rounding of bf16 where the result is stored in it.
inline void expect_close(const Tensor& got, const std::vector<double>& expected, DType dtype,
                         const char* what) {
  expect_within(got, expected, dtype == DType::bf16 ? 5e-3 : 1e-5, what);
}

}  // namespace millrace
