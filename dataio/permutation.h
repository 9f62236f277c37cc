#pragma once

#include <array>
#include <cstdint>

namespace millrace {

/// An epoch's order: a keyed bijection of [0, size), computed for one position at a time in O(1) memory.
///
/// A generalized Feistel network on Z_a x Z_b, b = ceil(sqrt(size)), a = ceil(size / b): a position is a
/// pair, and each round adds a keyed hash of one half to the other. Results of `size` or more are sent
/// through again until one fits. Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.
/// Fewer rounds than eight mix visibly worse. Any change of this arithmetic needs a new kPermutationVersion.
class Permutation {
 public:
  /// The order of `epoch` under `seed`; the key is a hash of both, never their sum.
  /// @throws InputError unless 1 <= size <= 2^62.
  Permutation(std::int64_t size, std::uint64_t seed, std::int64_t epoch);

  std::int64_t size() const { return static_cast<std::int64_t>(size_); }

  /// The index at `position`; both lie in [0, size()).
  std::int64_t operator()(std::int64_t position) const {
    auto x = static_cast<std::uint64_t>(position);
    do {
      x = once(x);
    } while (x >= size_);
    return static_cast<std::int64_t>(x);
  }

 private:
  static constexpr int kRounds = 8;

  std::uint64_t once(std::uint64_t x) const {
    std::uint64_t left = x / b_, right = x % b_;
    for (int round = 0; round < kRounds; round += 2) {
      left += hash(right, keys_[round], a_);
      left -= left >= a_ ? a_ : 0;
      right += hash(left, keys_[round + 1], b_);
      right -= right >= b_ ? b_ : 0;
    }
    return left * b_ + right;
  }

  /// Uniform in [0, bound), bound <= 2^32.
  static std::uint64_t hash(std::uint64_t value, std::uint64_t key, std::uint64_t bound) {
    value = (value ^ key) * 0x9FB21C651E98DF25u;
    value = (value ^ value >> 32) * 0xD6E8FEB86659FD93u;
    return (value >> 32) * bound >> 32;
  }

  std::uint64_t size_, a_, b_;
  std::array<std::uint64_t, kRounds> keys_;
};

}  // namespace millrace
