#include "sums.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace millrace::fakes {
namespace {

template <typename T>
T bits_at(const void* data, std::int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const T*>(data) + index, sizeof value);
  return value;
}

/// 10 bits of the mantissa, to nearest even.
double to_tf32(double value) {
  if (!std::isfinite(value) || value == 0) {
    return value;
  }
  int exponent = 0;
  const double mantissa = std::frexp(value, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(mantissa, 11)), exponent - 11);
}

double rounded(double value, Kept kept) {
  switch (kept) {
    case Kept::tf32:
      return to_tf32(value);
    case Kept::bf16:
      return __bfloat162float(__double2bfloat16(value));
    case Kept::f16:
      return __half2float(__double2half(value));
    case Kept::all:
      break;
  }
  return value;
}

/// A block of the product in registers: `Count` rows by `Width` places.
template <int Count, int Width, typename T>
void add_block(const T* const* left, const T* right, std::int64_t right_stride, std::int64_t inner,
               double* const* out, std::int64_t place) {
  double sums[Count][Width];
  for (int i = 0; i < Count; ++i) {
    std::copy_n(out[i] + place, Width, sums[i]);
  }
  for (std::int64_t t = 0; t < inner; ++t) {
    const T* const from = right + t * right_stride + place;
    for (int i = 0; i < Count; ++i) {
      const double factor = left[i][t];
      for (int j = 0; j < Width; ++j) {
        sums[i][j] += factor * static_cast<double>(from[j]);
      }
    }
  }
  for (int i = 0; i < Count; ++i) {
    std::copy_n(sums[i], Width, out[i] + place);
  }
}

template <int Width, typename T>
void add_column(const std::vector<const T*>& left, const T* right, std::int64_t right_stride,
                std::int64_t inner, const std::vector<double*>& out, std::int64_t place) {
  constexpr std::size_t kRows = 4;
  std::size_t i = 0;
  for (; i + kRows <= left.size(); i += kRows) {
    add_block<kRows, Width>(&left[i], right, right_stride, inner, &out[i], place);
  }
  for (; i < left.size(); ++i) {
    add_block<1, Width>(&left[i], right, right_stride, inner, &out[i], place);
  }
}

}  // namespace

std::size_t size_of(cudaDataType type) {
  return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : is_floating(type) ? 2 : 0;
}

bool is_floating(cudaDataType type) {
  return type == CUDA_R_64F || type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF;
}

double load(const void* data, std::int64_t index, cudaDataType type, Kept kept) {
  switch (type) {
    case CUDA_R_64F:
      return bits_at<double>(data, index);
    case CUDA_R_32F:
      return rounded(bits_at<float>(data, index), kept);
    case CUDA_R_16F:
      return __half2float(bits_at<__half>(data, index));
    default:
      return __bfloat162float(bits_at<__nv_bfloat16>(data, index));
  }
}

void store(void* data, std::int64_t index, cudaDataType type, double value) {
  const auto put = [&](auto rounded) {
    std::memcpy(static_cast<std::byte*>(data) + index * sizeof rounded, &rounded, sizeof rounded);
  };
  switch (type) {
    case CUDA_R_64F:
      return put(value);
    case CUDA_R_32F:
      return put(static_cast<float>(value));
    case CUDA_R_16F:
      return put(__double2half(value));
    default:
      return put(__double2bfloat16(value));
  }
}

template <typename T>
void add_products(const std::vector<const T*>& left, const T* right, std::int64_t right_stride,
                  std::int64_t inner, std::int64_t width, const std::vector<double*>& out) {
  std::int64_t place = 0;
  for (; place + 32 <= width; place += 32) {
    add_column<32>(left, right, right_stride, inner, out, place);
  }
  for (; place + 8 <= width; place += 8) {
    add_column<8>(left, right, right_stride, inner, out, place);
  }
  for (; place < width; ++place) {
    add_column<1>(left, right, right_stride, inner, out, place);
  }
}

template void add_products(const std::vector<const float*>&, const float*, std::int64_t, std::int64_t,
                           std::int64_t, const std::vector<double*>&);
template void add_products(const std::vector<const double*>&, const double*, std::int64_t, std::int64_t,
                           std::int64_t, const std::vector<double*>&);

}  // namespace millrace::fakes
