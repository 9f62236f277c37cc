#include <array>
#include <cstdint>

#include "base/philox.h"
#include "tensor/cpu/visit_float.h"
#include "tensor/kernels/random.h"

namespace millrace::cpu {
namespace {

/// The random word of an element: lane place % 4 of block place / 4, so any part of the mask can be drawn
/// alone.
class Words {
 public:
  explicit Words(std::uint64_t key)
      : key_{static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)} {}

  std::uint32_t operator()(std::uint64_t place) {
    const std::uint64_t block = place / 4;
    if (block != block_) {
      words_ =
          philox({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), 0, 0}, key_);
      block_ = block;
    }
    return words_[place % 4];
  }

 private:
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 4> words_{};
  std::uint64_t block_ = ~std::uint64_t{0};
};

template <typename T>
void drop(const Tensor& x, double p, std::uint64_t key, std::uint64_t first, Tensor& out) {
  const auto threshold = static_cast<float>(p);
  const auto scale = p < 1 ? static_cast<float>(1 / (1 - p)) : 0.0f;
  Words words(key);
  // Walk in row-major order whatever the memory order, so that the layout does not change the mask.
  Shape sizes = x.shape();
  Strides strides = x.strides();
  if (x.is_contiguous()) {
    sizes = {x.numel()};
    strides = {1};
  }
  const int dims = sizes.size();
  const std::int64_t row = dims == 0 ? 1 : sizes[-1];
  const std::int64_t step = dims == 0 ? 1 : strides[-1];
  std::array<std::int64_t, kMaxDims> index{};
  std::int64_t offset = 0;
  for (std::int64_t start = 0; start < x.numel(); start += row) {
    const T* from = x.data<T>() + offset;
    T* to = out.data<T>() + offset;
    for (std::int64_t i = 0; i < row; ++i) {
      const bool keep = to_unit_float(words(first + static_cast<std::uint64_t>(start + i))) >= threshold;
      to[i * step] = keep ? T(from[i * step] * scale) : T(0.0f);
    }
    for (int d = dims - 2; d >= 0; --d) {
      offset += strides[d];
      if (++index[static_cast<std::size_t>(d)] < sizes[d]) {
        break;
      }
      offset -= strides[d] * sizes[d];
      index[static_cast<std::size_t>(d)] = 0;
    }
  }
}

}  // namespace

void dropout(const Tensor& x, double p, std::uint64_t key, std::uint64_t first, Tensor& out) {
  visit_float(x.dtype(), "dropout", [&]<typename T>() { drop<T>(x, p, key, first, out); });
}

}  // namespace millrace::cpu
