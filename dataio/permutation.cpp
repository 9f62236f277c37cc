#include "dataio/permutation.h"

#include <cmath>

#include "base/error.h"
#include "base/philox.h"

namespace millrace {

namespace {

constexpr std::int64_t kLargest = std::int64_t{1} << 62;

std::uint64_t ceil_sqrt(std::uint64_t n) {
  auto root = static_cast<std::uint64_t>(std::sqrt(static_cast<double>(n)));
  while (root * root >= n && root > 0) {
    --root;
  }
  while (root * root < n) {
    ++root;
  }
  return root;
}

}  // namespace

Permutation::Permutation(std::int64_t size, std::uint64_t seed, std::int64_t epoch) {
  if (size < 1 || size > kLargest) {
    throw InputError("permutation: size {} is not in [1, {}]", size, kLargest);
  }
  size_ = static_cast<std::uint64_t>(size);
  b_ = ceil_sqrt(size_);
  a_ = (size_ + b_ - 1) / b_;
  const std::uint64_t key = mix(seed, static_cast<std::uint64_t>(epoch));
  for (std::uint32_t pair = 0; pair < kRounds / 2; ++pair) {
    const auto words =
        philox({pair, 0, 0, 0}, {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)});
    keys_[2 * pair] = std::uint64_t{words[1]} << 32 | words[0];
    keys_[2 * pair + 1] = std::uint64_t{words[3]} << 32 | words[2];
  }
}

}  // namespace millrace
