#pragma once

#include <bit>
#include <type_traits>

#include "tensor/cpu/channels.h"

/// Words of four bytes: an f32, or a pair of bf16, which `vdpbf16ps` multiplies and adds at once.
namespace millrace::cpu::channels {

template <typename T>
inline constexpr std::int64_t kPerWord = 4 / sizeof(T);
/// That hold so many numbers, the last one perhaps in part.
template <typename T>
std::int64_t words_of(std::int64_t count) {
  return (count + kPerWord<T> - 1) / kPerWord<T>;
}

#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
/// Whether pairs are the fastest way here: where there is AMX, oneDNN has it.
inline constexpr bool kMultipliesPairs = true;
#else
inline constexpr bool kMultipliesPairs = false;
#endif

/// sum + w * x, or with pairs the sum of both products, for processors that have it.
template <typename T>
Vec multiply_add(Vec sum, Vec w, float x) {
  if constexpr (std::is_same_v<T, float>) {
    return sum + w * x;
  } else {
#if defined(__AVX512BF16__)
    const IntVec pair = broadcast(std::bit_cast<std::int32_t>(x));
    return reinterpret_cast<Vec>(_mm512_dpbf16_ps(
        reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(pair)));
#else
    __builtin_unreachable();
#endif
  }
}

/// Pairs, rounded.
inline Vec pairs(Vec first, Vec second) {
  const auto bits = [](Vec value) {
    return __builtin_convertvector(detail::round_to_bf16(value), detail::Bits);
  };
  return reinterpret_cast<Vec>(bits(first) | bits(second) << 16);
}

}  // namespace millrace::cpu::channels
