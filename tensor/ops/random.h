#pragma once

#include <array>
#include <cstdint>

#include "tensor/tensor.h"

namespace millrace {

/// A stream of random numbers: Philox keyed by a seed, counting blocks. Copies continue independently.
class Generator {
 public:
  explicit Generator(std::uint64_t seed = 0) : seed_(seed) {}
  std::uint64_t seed() const { return seed_; }
  std::uint32_t next();                      ///< 32 random bits.
  float uniform();                           ///< In [0, 1).
  std::uint64_t below(std::uint64_t bound);  ///< Uniform in [0, bound).
  float normal();                            ///< Standard normal (Box-Muller).
  /// Reserves the next `count` blocks of four words for a kernel and returns the first one's number.
  std::uint64_t take_blocks(std::uint64_t count);

 private:
  std::uint64_t seed_;
  std::uint64_t block_ = 0;
  std::array<std::uint32_t, 4> words_{};
  int used_ = 4;
  float spare_ = 0;
  bool has_spare_ = false;
};

Tensor rand(const Shape& shape, Generator& generator, TensorOptions options = {});   ///< Uniform in [0, 1).
Tensor randn(const Shape& shape, Generator& generator, TensorOptions options = {});  ///< Standard normal.

}  // namespace millrace
