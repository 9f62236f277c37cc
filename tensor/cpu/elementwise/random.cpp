#include "tensor/kernels/random.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "base/philox.h"

namespace millrace::cpu {

namespace {

/// Calls `write(first, words)` for each block of four words; element `first + i` in memory order is made of
/// words[i].
template <typename F>
void for_each_block(std::uint64_t seed, std::uint64_t first_block, std::int64_t count, F&& write) {
  const std::array<std::uint32_t, 2> key = {static_cast<std::uint32_t>(seed),
                                            static_cast<std::uint32_t>(seed >> 32)};
  std::uint64_t block = first_block;
  for (std::int64_t first = 0; first < count; first += 4, ++block) {
    write(first,
          philox({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), 0, 0}, key));
  }
}

template <typename T>
void put(Tensor& out, std::int64_t first, const std::array<float, 4>& values) {
  T* const to = out.data<T>() + first;
  const std::int64_t count = std::min<std::int64_t>(4, out.numel() - first);
  for (std::int64_t i = 0; i < count; ++i) {
    to[i] = static_cast<T>(values[static_cast<std::size_t>(i)]);
  }
}

/// Uniform in [0, 1) in steps that T can hold, so that rounding never gives 1.
template <typename T>
float unit(std::uint32_t word) {
  constexpr int kBits = std::is_same_v<T, bfloat16> ? 8 : std::is_same_v<T, float16> ? 11 : 24;
  return static_cast<float>(word >> (32 - kBits)) * (1.0f / (1 << kBits));
}

}  // namespace

void rand_uniform(std::uint64_t seed, std::uint64_t first_block, Tensor& out) {
  visit(out.dtype(), [&]<typename T>() {
    for_each_block(
        seed, first_block, out.numel(), [&](std::int64_t first, const std::array<std::uint32_t, 4>& words) {
          put<T>(out, first, {unit<T>(words[0]), unit<T>(words[1]), unit<T>(words[2]), unit<T>(words[3])});
        });
  });
}

void rand_normal(std::uint64_t seed, std::uint64_t first_block, Tensor& out) {
  visit(out.dtype(), [&]<typename T>() {
    for_each_block(seed, first_block, out.numel(),
                   [&](std::int64_t first, const std::array<std::uint32_t, 4>& words) {
                     std::array<float, 4> values;
                     for (std::size_t pair = 0; pair < 4; pair += 2) {  // Box and Muller
                       const float radius = std::sqrt(-2.0f * std::log(1.0f - to_unit_float(words[pair])));
                       const float angle = 2.0f * std::numbers::pi_v<float> * to_unit_float(words[pair + 1]);
                       values[pair] = radius * std::cos(angle);
                       values[pair + 1] = radius * std::sin(angle);
                     }
                     put<T>(out, first, values);
                   });
  });
}

}  // namespace millrace::cpu
