#pragma once

#include <cassert>
#include <tuple>
#include <utility>

#include "tensor/cpu/floats.h"
#include "tensor/cpu/nest.h"

namespace millrace::cpu {

/// One row of out[i] = f(in[i]...): f32, bf16 and f16 in vectors of f32 whatever the strides, so that a value
/// never depends on where it lies; the other types one by one.
template <typename T, typename F, typename... In>
void map_row(const F& f, std::int64_t count, T* out, std::int64_t out_stride,
             std::pair<const In*, std::int64_t>... in) {
  if constexpr (is_vectorized<T>) {
    std::int64_t i = 0;
    if (out_stride == 1 && ((in.second == 1) && ...)) {
      for (; i + kWidth <= count; i += kWidth) {
        store_floats(out + i, f(load_floats(in.first + i)...));
      }
    } else {
      const auto read = [&i](const auto& operand, Floats constant) {
        const auto [data, stride] = operand;
        return stride == 0   ? constant
               : stride == 1 ? load_floats(data + i)
                             : load_some(data + i * stride, stride, kWidth);
      };
      const auto run = [&](auto... constant) {
        for (; i + kWidth <= count; i += kWidth) {
          const Floats value = f(read(in, constant)...);
          if (out_stride == 1) {
            store_floats(out + i, value);
          } else {
            store_some(out + i * out_stride, out_stride, kWidth, value);
          }
        }
      };
      run(splat(static_cast<float>(*in.first))...);
    }
    if (i < count) {
      store_some(out + i * out_stride, out_stride, count - i,
                 f(load_some(in.first + i * in.second, in.second, count - i)...));
    }
  } else {
    if (out_stride == 1 && ((in.second == 1) && ...)) {
      for (std::int64_t i = 0; i < count; ++i) {
        out[i] = static_cast<T>(f(in.first[i]...));
      }
    } else {
      for (std::int64_t i = 0; i < count; ++i) {
        out[i * out_stride] = static_cast<T>(f(in.first[i * in.second]...));
      }
    }
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
