#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tensor/dtype.h"

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

/// One vector register of floats, through GCC's vector types: the same source serves every processor.
/// Elementwise kernels compute f32, bf16 and f16 in it.
namespace millrace::cpu {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif
inline constexpr int kWidth = kVectorBytes / 4;

using Floats [[gnu::vector_size(kVectorBytes)]] = float;
using Ints [[gnu::vector_size(kVectorBytes)]] = std::int32_t;
using Words [[gnu::vector_size(kVectorBytes)]] = std::uint32_t;
using HalfWords [[gnu::vector_size(kVectorBytes / 2)]] = std::uint16_t;

inline Floats splat(float value) { return value - Floats{}; }

inline Floats load_floats(const float* from) {
  Floats value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

inline void store_floats(float* to, Floats value) { std::memcpy(to, &value, sizeof value); }

inline Floats load_floats(const bfloat16* from) {
  HalfWords half;
  std::memcpy(&half, from, sizeof half);
  return reinterpret_cast<Floats>(__builtin_convertvector(half, Words) << 16);
}

/// Rounds as `bfloat16(float)` does. The AVX-512 instruction is many times as fast, but makes subnormal
/// numbers zero.
inline void store_floats(bfloat16* to, Floats value) {
#if defined(__AVX512BF16__) && defined(__AVX512DQ__)
  constexpr int kSubnormal = 0x20;
  if (_mm512_fpclass_ps_mask(reinterpret_cast<__m512>(value), kSubnormal) == 0) [[likely]] {
    const __m256bh rounded = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(value));
    std::memcpy(static_cast<void*>(to), &rounded, sizeof rounded);
    return;
  }
#endif
  const Words bits = reinterpret_cast<Words>(value);
  const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Words quiet = (bits >> 16) | 0x40;
  const HalfWords half = __builtin_convertvector(value == value ? rounded : quiet, HalfWords);
  std::memcpy(static_cast<void*>(to), &half, sizeof half);
}

inline Floats load_floats(const float16* from) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(
      _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif defined(__F16C__)
  return reinterpret_cast<Floats>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
  Floats value;
  for (int i = 0; i < kWidth; ++i) {
    value[i] = from[i];
  }
  return value;
#endif
}

inline void store_floats(float16* to, Floats value) {
#if defined(__AVX512F__)
  const __m256i half =
      _mm512_maskz_cvtps_ph(0xffff, reinterpret_cast<__m512>(value), _MM_FROUND_TO_NEAREST_INT);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), half);
#elif defined(__F16C__)
  const __m128i half = _mm256_cvtps_ph(reinterpret_cast<__m256>(value), _MM_FROUND_TO_NEAREST_INT);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), half);
#else
  for (int i = 0; i < kWidth; ++i) {
    to[i] = float16(value[i]);
  }
#endif
}

/// The types that are computed in vectors of f32.
template <typename T>
inline constexpr bool is_vectorized =
    std::is_same_v<T, float> || std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

/// What a type is computed in: f32 for the half types, itself otherwise.
template <typename T>
using Scalar = std::conditional_t<is_vectorized<T>, float, T>;
/// What `map` passes for an element of T.
template <typename T>
using Lane = std::conditional_t<is_vectorized<T>, Floats, T>;

/// A number as an element of T; integers wrap around.
template <typename T>
T element(double value) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(static_cast<std::int64_t>(value));
  } else {
    return static_cast<T>(static_cast<Scalar<T>>(value));
  }
}

/// A number as `map` passes it.
template <typename T>
Lane<T> lane(double value) {
  if constexpr (is_vectorized<T>) {
    return splat(static_cast<float>(value));
  } else {
    return element<T>(value);
  }
}

/// `count` elements, `stride` apart; further lanes are zero.
template <typename T>
Floats load_some(const T* from, std::int64_t stride, std::int64_t count) {
  T lanes[kWidth] = {};
  for (std::int64_t i = 0; i < count; ++i) {
    lanes[i] = from[i * stride];
  }
  return load_floats(lanes);
}

template <typename T>
void store_some(T* to, std::int64_t stride, std::int64_t count, Floats value) {
  T lanes[kWidth];
  store_floats(lanes, value);
  for (std::int64_t i = 0; i < count; ++i) {
    to[i * stride] = lanes[i];
  }
}

}  // namespace millrace::cpu
