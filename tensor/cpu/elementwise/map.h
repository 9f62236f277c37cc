#pragma once

#include <algorithm>
#include <cassert>
#include <tuple>
#include <utility>

#include "tensor/cpu/floats.h"
#include "tensor/nest.h"

namespace millrace::cpu {

/// Elements of a strided row that are computed at a time, side by side on the stack.
inline constexpr std::int64_t kBlock = 256;

template <typename T, typename To>
[[gnu::noinline]] void pack(const T* from, std::int64_t stride, std::int64_t count, To* to) {
  for (std::int64_t i = 0; i < count; ++i) {
    to[i] = from[i * stride];
  }
}

template <typename From, typename T>
[[gnu::noinline]] void unpack(const From* from, std::int64_t count, T* to, std::int64_t stride) {
  for (std::int64_t i = 0; i < count; ++i) {
    to[i * stride] = static_cast<T>(from[i]);
  }
}

/// out[i] = f(in[i]...) side by side: f32 and bf16 in vectors of f32, the other types one by one.
template <typename T, typename F, typename... In>
[[gnu::noinline]] void map_dense(const F& f, std::int64_t count, T* out, const In*... in) {
  std::int64_t i = 0;
  if constexpr (is_vectorized<T>) {
    for (; i + kWidth <= count; i += kWidth) {
      store_floats(out + i, f(load_floats(in + i)...));
    }
    if (i < count) {
      store_some(out + i, 1, count - i, f(load_some(in + i, 1, count - i)...));
    }
  } else {
    for (; i < count; ++i) {
      out[i] = static_cast<T>(f(in[i]...));
    }
  }
}

/// The same at any strides: blocks are packed, so that each operation is compiled once for its type and a
/// value never depends on where it lies.
template <typename T, typename F, typename... In>
void map_row(const F& f, std::int64_t count, T* out, std::int64_t out_stride,
             std::pair<const In*, std::int64_t>... in) {
  using S = Scalar<T>;
  if constexpr (!std::is_same_v<T, float16>) {  // f16 is rare enough to go by blocks always
    if (out_stride == 1 && ((in.second == 1) && ...)) {
      return map_dense(f, count, out, in.first...);
    }
  }
  S results[kBlock];
  S operands[sizeof...(In)][kBlock];
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t size = std::min(kBlock, count - begin);
    std::size_t n = 0;
    (pack(in.first + begin * in.second, in.second, size, operands[n++]), ...);
    const auto run = [&]<std::size_t... I>(std::index_sequence<I...>) {
      map_dense(f, size, results, static_cast<const S*>(operands[I])...);
    };
    run(std::index_sequence_for<In...>{});
    unpack(results, size, out + begin * out_stride, out_stride);
  }
}

/// out = f(in...) elementwise over any strides; all operands have T and out's shape.
template <typename T, typename F, typename... In>
void map(const F& f, Tensor& out, const In&... in) {
  assert(((in.shape() == out.shape() && in.dtype() == out.dtype()) && ...));
  T* out_data = out.data<T>();
  if (((in.strides() == out.strides()) && ...) &&
      out.is_contiguous()) {  // before any loop nest: small tensors are many
    map_row<T>(f, out.numel(), out_data, 1, std::pair<const T*, std::int64_t>(in.template data<T>(), 1)...);
    return;
  }
  const auto nest = nest_of(out.shape(), out, in...);
  const std::int64_t count = nest.row();
  const auto strides = nest.row_strides();
  nest.for_each_row([&](const auto& offsets) {
    const auto row = [&]<std::size_t... I>(std::index_sequence<I...>) {
      map_row<T>(
          f, count, out_data + offsets[0], strides[0],
          std::pair<const T*, std::int64_t>(in.template data<T>() + offsets[I + 1], strides[I + 1])...);
    };
    row(std::index_sequence_for<In...>{});
  });
}

}  // namespace millrace::cpu
