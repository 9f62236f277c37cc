#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define MILLRACE_MASKED_LANES 1
#include <immintrin.h>
#endif

#include "tensor/dtype.h"

/// Sixteen numbers at a time, for loops over channels, in GCC's vector types, which any processor can run.
/// Only masked lanes and the rounding to bf16 have a form of their own for AVX-512.
namespace millrace::cpu::channels {

inline constexpr std::int64_t kLanes = 16;
using Vec = float __attribute__((vector_size(64)));
using IntVec = std::int32_t __attribute__((vector_size(64)));

namespace detail {
using Bits = std::uint32_t __attribute__((vector_size(64)));
using Halves = std::uint16_t __attribute__((vector_size(32)));
using Bytes = std::uint8_t __attribute__((vector_size(16)));

template <typename T>
struct Lanes;
template <>
struct Lanes<float> {
  using Packed = Vec;
  using Wide = Vec;
};
template <>
struct Lanes<bfloat16> {
  using Packed = Halves;
  using Wide = Vec;
};
template <>
struct Lanes<std::int32_t> {
  using Packed = IntVec;
  using Wide = IntVec;
};
template <>
struct Lanes<std::uint8_t> {
  using Packed = Bytes;
  using Wide = IntVec;
};
template <typename T>
using Packed = typename Lanes<T>::Packed;
template <typename T>
using Wide = typename Lanes<T>::Wide;

template <typename T>
Wide<T> widen(Packed<T> packed) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    return reinterpret_cast<Vec>(__builtin_convertvector(packed, Bits) << 16);
  } else if constexpr (std::is_same_v<T, std::uint8_t>) {
    return __builtin_convertvector(packed, IntVec);
  } else {
    return packed;
  }
}

inline Halves round_to_bf16(Vec value) {
#if defined(__AVX512BF16__)
  return reinterpret_cast<Halves>(_mm512_cvtneps_pbh(value));
#else
  const Bits bits = reinterpret_cast<Bits>(value);
  const Bits rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const Bits quiet_nan = bits >> 16 | 0x40u;
  return __builtin_convertvector(value != value ? quiet_nan : rounded, Halves);
#endif
}

template <typename T>
Packed<T> pack(Wide<T> wide) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    return round_to_bf16(wide);
  } else if constexpr (std::is_same_v<T, std::uint8_t>) {
    return __builtin_convertvector(wide, Bytes);
  } else {
    return wide;
  }
}
}  // namespace detail

inline Vec broadcast(float value) { return Vec{} + value; }
inline IntVec broadcast(std::int32_t value) { return IntVec{} + value; }

/// A whole vector: loads and stores with it need no mask.
struct All {
  operator std::int64_t() const { return kLanes; }
};

/// Sixteen f32, bf16 (as floats), i32 or u8 (as i32).
template <typename T>
detail::Wide<T> load(const T* p, All = {}) {
  detail::Packed<T> packed;
  std::memcpy(&packed, p, sizeof(packed));
  return detail::widen<T>(packed);
}
template <typename T>
void store(T* p, detail::Wide<T> value, All = {}) {
  const detail::Packed<T> packed = detail::pack<T>(value);
  std::memcpy(static_cast<void*>(p), &packed, sizeof(packed));
}

/// The first n <= 16 of them; the other lanes are read as 0 and not written.
template <typename T>
detail::Wide<T> load(const T* p, std::int64_t n) {
#if defined(MILLRACE_MASKED_LANES)
  using Packed = detail::Packed<T>;
  const auto mask = static_cast<__mmask16>((1u << n) - 1);
  if constexpr (sizeof(T) == 4) {
    return detail::widen<T>(reinterpret_cast<Packed>(_mm512_maskz_loadu_epi32(mask, p)));
  }
  if constexpr (sizeof(T) == 2) {
    return detail::widen<T>(reinterpret_cast<Packed>(_mm256_maskz_loadu_epi16(mask, p)));
  }
  if constexpr (sizeof(T) == 1) {
    return detail::widen<T>(reinterpret_cast<Packed>(_mm_maskz_loadu_epi8(mask, p)));
  }
#else
  detail::Packed<T> packed{};
  std::memcpy(&packed, p, static_cast<std::size_t>(n) * sizeof(T));
  return detail::widen<T>(packed);
#endif
}
template <typename T>
void store(T* p, detail::Wide<T> value, std::int64_t n) {
  const detail::Packed<T> packed = detail::pack<T>(value);
#if defined(MILLRACE_MASKED_LANES)
  const auto mask = static_cast<__mmask16>((1u << n) - 1);
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_epi32(p, mask, reinterpret_cast<__m512i>(packed));
  }
  if constexpr (sizeof(T) == 2) {
    _mm256_mask_storeu_epi16(p, mask, reinterpret_cast<__m256i>(packed));
  }
  if constexpr (sizeof(T) == 1) {
    _mm_mask_storeu_epi8(p, mask, reinterpret_cast<__m128i>(packed));
  }
#else
  std::memcpy(static_cast<void*>(p), &packed, static_cast<std::size_t>(n) * sizeof(T));
#endif
}

/// `value` as it will be read once it is stored.
template <typename T>
Vec rounded(Vec value) {
  return detail::widen<T>(detail::pack<T>(value));
}

/// Where value is larger than best, or not a number, takes it and its place.
inline void take_larger(Vec value, std::int32_t place, Vec& best, IntVec& winner) {
#if defined(MILLRACE_MASKED_LANES)
  const __m512 v = reinterpret_cast<__m512>(value), b = reinterpret_cast<__m512>(best);
  const auto take =
      static_cast<__mmask16>(_mm512_cmp_ps_mask(v, b, _CMP_GT_OQ) | _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q));
  best = reinterpret_cast<Vec>(_mm512_mask_mov_ps(b, take, v));
  winner = reinterpret_cast<IntVec>(_mm512_mask_set1_epi32(reinterpret_cast<__m512i>(winner), take, place));
#else
  const IntVec take = (value > best) | (value != value);
  best = take ? value : best;
  winner = take ? broadcast(place) : winner;
#endif
}

/// Of thirty-two numbers, a's and b's, those at sixteen places.
inline Vec shuffle(Vec a, Vec b, IntVec places) {
#if defined(MILLRACE_MASKED_LANES)
  return reinterpret_cast<Vec>(_mm512_permutex2var_ps(
      reinterpret_cast<__m512>(a), reinterpret_cast<__m512i>(places), reinterpret_cast<__m512>(b)));
#else
  Vec result{};
  for (std::int64_t lane = 0; lane < kLanes; ++lane) {
    result[lane] = places[lane] < kLanes ? a[places[lane]] : b[places[lane] - kLanes];
  }
  return result;
#endif
}

/// Calls f(first, lanes) for each group of up to sixteen channels; `lanes` is All, or a number for the last
/// one.
template <typename F>
void for_each_group(std::int64_t channels, F&& f) {
  std::int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) {
    f(c, All{});
  }
  if (c < channels) {
    f(c, channels - c);
  }
}

}  // namespace millrace::cpu::channels
