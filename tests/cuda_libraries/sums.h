#pragma once

#include <cstddef>
#include <cstdint>
#include <library_types.h>
#include <vector>

/// What the fakes of cuBLASLt and cuDNN compute with: plain loops in double, and NVIDIA's own conversions.
/// Nothing here is shared with our kernels.
namespace millrace::fakes {

/// What of a number's mantissa a product keeps.
enum class Kept : std::uint8_t { all, tf32, bf16, f16 };

std::size_t size_of(cudaDataType type);
bool is_floating(cudaDataType type);
/// An element anywhere in memory.
double load(const void* data, std::int64_t index, cudaDataType type, Kept kept = Kept::all);
/// Rounds once, to nearest even; what is too large becomes infinite.
void store(void* data, std::int64_t index, cudaDataType type, double value);

/// Rows of numbers, one after the other.
template <typename T>
struct Rows {
  std::int64_t count = 0, width = 0;
  std::vector<T> values = std::vector<T>(static_cast<std::size_t>(count * width));
  T* row(std::int64_t i) { return values.data() + i * width; }
  const T* row(std::int64_t i) const { return values.data() + i * width; }
};

/// out[i][j] += the sum over t of left[i][t] * right[t * right_stride + j], for `width` places j.
template <typename T>
void add_products(const std::vector<const T*>& left, const T* right, std::int64_t right_stride,
                  std::int64_t inner, std::int64_t width, const std::vector<double*>& out);

}  // namespace millrace::fakes
