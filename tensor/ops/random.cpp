#include "tensor/ops/random.h"

#include <cmath>
#include <numbers>

#include "base/philox.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/random.h"
#include "tensor/kernels/recording.h"

namespace millrace {

namespace {

/// A replay would not draw anew.
void say_that_it_draws() { refuse_recording("it draws random numbers"); }

}  // namespace

std::uint32_t Generator::next() {
  say_that_it_draws();
  if (used_ == 4) {
    words_ = philox({static_cast<std::uint32_t>(block_), static_cast<std::uint32_t>(block_ >> 32), 0, 0},
                    {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
    ++block_;
    used_ = 0;
  }
  return words_[static_cast<std::size_t>(used_++)];
}

float Generator::uniform() { return to_unit_float(next()); }

std::uint64_t Generator::below(std::uint64_t bound) {
  if (bound == 0) {
    throw InputError("below: got the bound 0, expected 1 or more");
  }
  // The high half of word * bound is uniform once the few low halves that would favour some values are drawn
  // again (Lemire, "Fast random integer generation in an interval", 2019).
  const auto draw = [&] {
    const std::uint64_t high = next();
    return static_cast<unsigned __int128>(high << 32 | next()) * bound;
  };
  unsigned __int128 product = draw();
  const std::uint64_t unfair = (0 - bound) % bound;
  while (static_cast<std::uint64_t>(product) < unfair) {
    product = draw();
  }
  return static_cast<std::uint64_t>(product >> 64);
}

float Generator::normal() {
  if (has_spare_) {
    say_that_it_draws();
    has_spare_ = false;
    return spare_;
  }
  const float radius = std::sqrt(-2.0f * std::log(1.0f - uniform()));  // 1 - u is in (0, 1]
  const float angle = 2.0f * std::numbers::pi_v<float> * uniform();
  spare_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

std::uint64_t Generator::take_blocks(std::uint64_t count) {
  say_that_it_draws();
  const std::uint64_t first = block_;
  block_ += count;
  return first;
}

namespace {

void check_floating(const char* name, DType dtype) {
  if (!is_floating(dtype)) {
    throw InputError("{}: got type {}, expected a floating type", name, dtype);
  }
}

std::uint64_t blocks_for(std::int64_t numbers) { return static_cast<std::uint64_t>((numbers + 3) / 4); }

}  // namespace

Tensor rand(const Shape& shape, Generator& generator, TensorOptions options) {
  check_floating("rand", options.dtype);
  Tensor out = empty(shape, options);
  const std::uint64_t first = generator.take_blocks(blocks_for(out.numel()));
  MILLRACE_LAUNCH(options.device, rand_uniform, generator.seed(), first, out);
  return out;
}

Tensor randn(const Shape& shape, Generator& generator, TensorOptions options) {
  check_floating("randn", options.dtype);
  Tensor out = empty(shape, options);
  const std::uint64_t first = generator.take_blocks(blocks_for(out.numel()));
  MILLRACE_LAUNCH(options.device, rand_normal, generator.seed(), first, out);
  return out;
}

}  // namespace millrace
