#pragma once

#include <array>
#include <cstdint>

namespace millrace {

/// Philox4x32-10: four random words from a 128-bit counter and a 64-bit key, without state.
/// Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                              std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// A well-mixed 64-bit hash of two words, for deriving keys: seeds are never added to each other.
constexpr std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  const auto words =
      philox({static_cast<std::uint32_t>(b), static_cast<std::uint32_t>(b >> 32), 0x6d696c6cu, 0x72616365u},
             {static_cast<std::uint32_t>(a), static_cast<std::uint32_t>(a >> 32)});
  return std::uint64_t{words[1]} << 32 | words[0];
}

/// Uniform in [0, 1) with 24 random bits.
constexpr float to_unit_float(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1.0p-24f; }

}  // namespace millrace
