#include "base/crc32c.h"

#include <array>
#include <cstring>

#ifdef __x86_64__
#include <nmmintrin.h>
#endif

namespace millrace {

namespace {

constexpr std::array<std::uint32_t, 256> kTable = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < table.size(); ++byte) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) {
      value = value >> 1 ^ (value & 1 ? 0x82F63B78u : 0u);
    }
    table[byte] = value;
  }
  return table;
}();

#ifdef __x86_64__
/// The instruction takes three cycles and can begin each cycle: three blocks at once keep it busy.
constexpr std::size_t kBlock = 256;

/// What a state becomes over a block of zeros, as the XOR of an entry for each of its bytes.
constexpr auto kOverBlock = [] {
  std::array<std::array<std::uint32_t, 256>, 4> table{};
  for (std::size_t bit = 0; bit < 32; ++bit) {
    std::uint32_t state = std::uint32_t{1} << bit;
    for (std::size_t i = 0; i < kBlock; ++i) {
      state = state >> 8 ^ kTable[state & 0xFF];
    }
    for (std::size_t byte = 0; byte < 256; ++byte) {
      if (byte >> bit % 8 & 1) {
        table[bit / 8][byte] ^= state;
      }
    }
  }
  return table;
}();

std::uint64_t over_block(std::uint64_t state) {
  return kOverBlock[0][state & 0xFF] ^ kOverBlock[1][state >> 8 & 0xFF] ^ kOverBlock[2][state >> 16 & 0xFF] ^
         kOverBlock[3][state >> 24];
}

std::uint64_t word_at(const std::byte* at) {
  std::uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

[[gnu::target("sse4.2")]] std::uint32_t crc32c_by_instruction(std::span<const std::byte> bytes,
                                                              std::uint32_t crc) {
  std::uint64_t first = ~crc;
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 3 * kBlock; at += 3 * kBlock, left -= 3 * kBlock) {
    std::uint64_t second = 0, third = 0;
    for (std::size_t i = 0; i < kBlock; i += 8) {
      first = _mm_crc32_u64(first, word_at(at + i));
      second = _mm_crc32_u64(second, word_at(at + kBlock + i));
      third = _mm_crc32_u64(third, word_at(at + 2 * kBlock + i));
    }
    first = over_block(over_block(first) ^ second) ^ third;
  }
  for (; left >= 8; at += 8, left -= 8) {
    first = _mm_crc32_u64(first, word_at(at));
  }
  auto state = static_cast<std::uint32_t>(first);
  for (; left > 0; ++at, --left) {
    state = _mm_crc32_u8(state, std::to_integer<std::uint8_t>(*at));
  }
  return ~state;
}
#endif

}  // namespace

std::uint32_t crc32c_by_table(std::span<const std::byte> bytes, std::uint32_t crc) {
  crc = ~crc;
  for (const std::byte byte : bytes) {
    crc = crc >> 8 ^ kTable[(crc ^ std::to_integer<std::uint32_t>(byte)) & 0xFF];
  }
  return ~crc;
}

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc) {
#ifdef __x86_64__
  static const bool has_instruction = __builtin_cpu_supports("sse4.2");
  if (has_instruction) {
    return crc32c_by_instruction(bytes, crc);
  }
#endif
  return crc32c_by_table(bytes, crc);
}

}  // namespace millrace
