#include <cstring>

#include "tensor/cpu/floats.h"
#include "tensor/kernels/elementwise.h"
#include "tensor/nest.h"

namespace millrace::cpu {

namespace {

/// Elements of one size moved between any strides; the type does not matter.
template <typename T>
void move_rows(const Tensor& source, Tensor& out) {
  const auto nest = nest_of(out.shape(), out, source);
  const std::int64_t count = nest.row();
  const auto [to_stride, from_stride] = nest.row_strides();
  T* const to = reinterpret_cast<T*>(out.raw());
  const T* const from = reinterpret_cast<const T*>(source.raw());
  const bool dense = nest.row_is_dense();
  nest.for_each_row([&, to_stride = to_stride, from_stride = from_stride](const auto& offsets) {
    if (dense) {
      std::memcpy(to + offsets[0], from + offsets[1], static_cast<std::size_t>(count) * sizeof(T));
      return;
    }
    for (std::int64_t i = 0; i < count; ++i) {
      to[offsets[0] + i * to_stride] = from[offsets[1] + i * from_stride];
    }
  });
}

template <typename To, typename From>
To converted(From value) {
  const auto number = static_cast<Scalar<From>>(value);
  if constexpr (std::is_same_v<To, std::uint8_t> && std::is_floating_point_v<Scalar<From>>) {
    return static_cast<To>(static_cast<std::int32_t>(number));  // -1 wraps to 255, as from integers
  } else {
    return static_cast<To>(number);
  }
}

template <typename From, typename To>
void convert_row(const From* from, std::int64_t from_stride, To* to, std::int64_t to_stride,
                 std::int64_t count) {
  std::int64_t i = 0;
  if (from_stride == 1 && to_stride == 1) {
    if constexpr (is_vectorized<From> && is_vectorized<To>) {
      for (; i + kWidth <= count; i += kWidth) {
        store_floats(to + i, load_floats(from + i));
      }
    } else {
      for (; i < count; ++i) {
        to[i] = converted<To>(from[i]);
      }
    }
  }
  for (; i < count; ++i) {
    to[i * to_stride] = converted<To>(from[i * from_stride]);
  }
}

void convert(const Tensor& source, Tensor& out) {
  const auto nest = nest_of(out.shape(), out, source);
  const std::int64_t count = nest.row();
  const auto strides = nest.row_strides();
  visit(source.dtype(), [&]<typename From>() {
    visit(out.dtype(), [&]<typename To>() {
      nest.for_each_row([&](const auto& offsets) {
        convert_row(source.data<From>() + offsets[1], strides[1], out.data<To>() + offsets[0], strides[0],
                    count);
      });
    });
  });
}

}  // namespace

void copy(const Tensor& source, Tensor& out) {
  if (source.dtype() != out.dtype()) {
    return convert(source, out);
  }
  switch (size_of(out.dtype())) {
    case 1:
      return move_rows<std::uint8_t>(source, out);
    case 2:
      return move_rows<std::uint16_t>(source, out);
    case 4:
      return move_rows<std::uint32_t>(source, out);
    default:
      return move_rows<std::uint64_t>(source, out);
  }
}

void fill(Tensor& out, double value) {
  const auto nest = nest_of(out.shape(), out);
  const std::int64_t count = nest.row();
  const std::int64_t stride = nest.row_strides()[0];
  visit(out.dtype(), [&]<typename T>() {
    const T filler = element<T>(value);
    nest.for_each_row([&](const auto& offsets) {
      T* to = out.data<T>() + offsets[0];
      if (nest.row_is_dense()) {
        std::fill_n(to, count, filler);
      } else {
        for (std::int64_t i = 0; i < count; ++i) {
          to[i * stride] = filler;
        }
      }
    });
  });
}

void arange(double start, double step, Tensor& out) {
  visit(out.dtype(), [&]<typename T>() {
    T* to = out.data<T>();
    for (std::int64_t i = 0; i < out.numel(); ++i) {
      to[i] = element<T>(start + static_cast<double>(i) * step);
    }
  });
}

}  // namespace millrace::cpu
