#pragma once

#include <cstdlib>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <vector>

#include "tensor/ops.h"
#include "tests/base/input_error.h"
#include "tests/tensor/epsilon.h"

namespace millrace::test {

/// The seed of randomized tests, printed with their failures; MILLRACE_TEST_SEED tries another.
inline std::uint64_t seed() {
  const char* given = std::getenv("MILLRACE_TEST_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : 1;
}

inline std::mt19937_64 random_engine() { return std::mt19937_64(seed()); }

/// Numbers that every type holds exactly: eighths in [-4, 4] for floating types, small integers otherwise.
inline Tensor sample(const Shape& shape, DType dtype, std::mt19937_64& engine,
                     MemoryFormat format = MemoryFormat::row_major) {
  Tensor out = empty(shape, {.dtype = dtype, .format = format});
  visit(dtype, [&]<typename T>() {
    std::uniform_int_distribution<int> draw(dtype == DType::u8 ? 0 : -32, 32);
    for (std::int64_t i = 0; i < out.numel(); ++i) {
      out.data<T>()[i] = static_cast<T>(is_floating(dtype) ? static_cast<float>(draw(engine)) / 8
                                                           : static_cast<float>(draw(engine)));
    }
  });
  return out;
}

/// All elements in row-major order.
inline std::vector<double> values(const Tensor& x) {
  std::vector<double> result;
  std::vector<std::int64_t> index(static_cast<std::size_t>(x.dim()), 0);
  for (std::int64_t n = 0; n < x.numel(); ++n) {
    std::int64_t offset = 0;
    for (int d = 0; d < x.dim(); ++d) {
      offset += index[static_cast<std::size_t>(d)] * x.strides()[d];
    }
    result.push_back(
        visit(x.dtype(), [&]<typename T>() { return static_cast<double>(x.data<T>()[offset]); }));
    for (int d = x.dim() - 1; d >= 0 && ++index[static_cast<std::size_t>(d)] == x.shape()[d]; --d) {
      index[static_cast<std::size_t>(d)] = 0;
    }
  }
  return result;
}

/// The value of `x` broadcast to `shape` at the row-major place `n`.
inline double broadcast_at(const Tensor& x, const Shape& shape, std::int64_t n) {
  std::int64_t offset = 0;
  for (int d = shape.size() - 1; d >= 0; --d) {
    const int own = d - (shape.size() - x.dim());
    const std::int64_t place = n % shape[d];
    n /= shape[d];
    if (own >= 0 && x.shape()[own] != 1) {
      offset += place * x.strides()[own];
    }
  }
  return visit(x.dtype(), [&]<typename T>() { return static_cast<double>(x.data<T>()[offset]); });
}

inline constexpr DType kAllTypes[] = {DType::f32, DType::f64, DType::f16, DType::bf16,
                                      DType::u8,  DType::i32, DType::i64};
inline constexpr DType kFloatingTypes[] = {DType::f32, DType::f64, DType::f16, DType::bf16};

}  // namespace millrace::test
