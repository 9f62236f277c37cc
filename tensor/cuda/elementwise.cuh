#pragma once

#include <array>
#include <limits>
#include <vector>

#include "tensor/cuda/launch.cuh"
#include "tensor/nest.h"

/// out = f(in...) for each element, over any strides: `map<To, From...>(name, f, out, in...)`.
namespace millrace::cuda {

/// Quotients by a fixed number, for numerators below 2^31: a multiplication and a shift.
/// Granlund and Montgomery, "Division by invariant integers using multiplication", PLDI 1994.
class Divider {
 public:
  Divider() = default;
  explicit Divider(std::uint32_t divisor) : divisor_(divisor) {
    while ((std::uint64_t{1} << shift_) < divisor) {
      ++shift_;
    }
    multiplier_ = static_cast<std::uint32_t>(
        (std::uint64_t{1} << 32) * ((std::uint64_t{1} << shift_) - divisor) / divisor + 1);
  }
  /// Leaves the remainder in `n`.
  __host__ __device__ std::uint32_t divide(std::uint32_t& n) const {
    const auto high = static_cast<std::uint32_t>(std::uint64_t{n} * multiplier_ >> 32);
    const std::uint32_t quotient = (high + n) >> shift_;
    n -= quotient * divisor_;
    return quotient;
  }

 private:
  std::uint32_t divisor_ = 1, multiplier_ = 1, shift_ = 0;
};

/// A loop nest as kernels take it: at most 2^31 - 1 elements.
template <std::size_t N>
struct Layout {
  int dims = 0;
  std::int64_t count = 1;
  Divider sizes[kMaxDims];
  std::int64_t strides[kMaxDims][N] = {};

  explicit Layout(std::span<const typename Nest<N>::Dim> loops) : dims(static_cast<int>(loops.size())) {
    for (int d = 0; d < dims; ++d) {
      const auto& loop = loops[static_cast<std::size_t>(d)];
      count *= loop.size;
      sizes[d] = Divider(static_cast<std::uint32_t>(loop.size));
      std::copy(loop.strides.begin(), loop.strides.end(), strides[d]);
    }
  }

  struct Offsets {
    std::int64_t of[N];
  };
  /// Where element i, counted from the innermost loop on, lies in each operand.
  __device__ Offsets offsets(std::int64_t i) const {
    Offsets result{};
    auto rest = static_cast<std::uint32_t>(i);
#pragma unroll
    for (int d = 0; d < kMaxDims; ++d) {
      if (d == dims) {
        break;
      }
      std::uint32_t place = rest;
      rest = sizes[d].divide(place);
#pragma unroll
      for (std::size_t n = 0; n < N; ++n) {
        result.of[n] += place * strides[d][n];
      }
    }
    return result;
  }
};

/// Calls `f(layout, offsets)` for parts of the nest that one launch takes; nearly always for one.
template <std::size_t N, typename F>
void for_each_part(std::span<const typename Nest<N>::Dim> loops, F&& f,
                   const typename Nest<N>::Offsets& start = {}) {
  std::int64_t count = 1;
  for (const auto& loop : loops) {
    count *= loop.size;
  }
  if (count <= largest_launch) {
    return f(Layout<N>(loops), start);
  }
  // The outermost loop is cut, and left out once it has one round.
  std::vector<typename Nest<N>::Dim> part(loops.begin(), loops.end());
  auto& outer = part.back();
  const std::int64_t step = std::max<std::int64_t>(1, outer.size / (count / largest_launch + 1));
  const std::int64_t size = outer.size;
  typename Nest<N>::Offsets offsets = start;
  for (std::int64_t first = 0; first < size; first += step) {
    outer.size = std::min(step, size - first);
    const std::size_t kept = part.size() - (outer.size == 1 ? 1 : 0);
    for_each_part<N>(std::span<const typename Nest<N>::Dim>(part.data(), kept), f, offsets);
    for (std::size_t n = 0; n < N; ++n) {
      offsets[n] += step * outer.strides[n];
    }
  }
}

/// An operand of a flat loop: neighbours, or one element for all.
template <typename T>
struct Flat {
  const T* data;
  bool is_one;

  template <int N>
  __device__ Pack<T, N> pack(std::int64_t first) const {
    if (!is_one) {
      return load_pack<T, N>(data + first);
    }
    Pack<T, N> same;
    for (T& element : same.at) {
      element = *data;
    }
    return same;
  }
  __device__ T operator[](std::int64_t i) const { return data[is_one ? 0 : i]; }
};

template <int N, typename F, typename To, typename... From>
__global__ void map_flat(F f, std::int64_t count, To* out, Flat<From>... in) {
  for (std::int64_t pack : grid_range(count / N)) {
    const auto apply = [&](const Pack<From, N>&... from) {
      Pack<To, N> to;
#pragma unroll
      for (int k = 0; k < N; ++k) {
        to.at[k] = from_float<To>(f(to_float(from.at[k])...));
      }
      store_pack<To, N>(out + pack * N, to);
    };
    apply(in.template pack<N>(pack * N)...);
  }
  for (std::int64_t i : grid_range(count % N)) {
    const std::int64_t last = count - 1 - i;
    out[last] = from_float<To>(f(to_float(in[last])...));
  }
}

template <typename F, std::size_t N, typename To, typename... From>
__global__ void map_strided(F f, Layout<N> layout, To* out, const From*... in) {
  for (std::int64_t i : grid_range(layout.count)) {
    const auto offsets = layout.offsets(i);
    const auto apply = [&]<std::size_t... I>(std::index_sequence<I...>) {
      out[offsets.of[0]] = from_float<To>(f(to_float(in[offsets.of[I + 1]])...));
    };
    apply(std::index_sequence_for<From...>{});
  }
}

/// Whether a nest is one loop that writes neighbours, and reads neighbours or one element for all.
template <std::size_t N>
bool is_flat(const Nest<N>& nest) {
  const auto& strides = nest.row_strides();
  return nest.is_flat() && strides[0] == 1 &&
         std::all_of(strides.begin(), strides.end(), [](auto stride) { return stride == 0 || stride == 1; });
}

/// `f` takes scalars (see `Scalar`) and returns To's. All operands have out's shape.
template <typename To, typename... From, typename F, typename... In>
void map(std::string_view operation, const F& f, Tensor& out, const In&... in) {
  static_assert(sizeof...(From) == sizeof...(In));
  const auto nest = nest_of(out.shape(), out, in...);
  if (nest.empty()) {
    return;
  }
  const cudaStream_t stream = stream_of(out);
  const auto run = [&]<std::size_t... I>(std::index_sequence<I...>) {
    constexpr std::size_t kOperands = 1 + sizeof...(In);
    constexpr int kWidth = 16 / static_cast<int>(std::max({sizeof(To), sizeof(From)...}));
    if (is_flat(nest) && is_aligned(out.raw()) && (is_aligned(in.raw()) && ...)) {
      launch(operation, map_flat<kWidth, F, To, From...>, grid_for((nest.row() + kWidth - 1) / kWidth),
             stream, f, nest.row(), data_of<To>(out),
             Flat<From>{data_of<From>(in), nest.row_strides()[I + 1] == 0}...);
      return;
    }
    for_each_part<kOperands>(nest.dims(), [&](const Layout<kOperands>& layout, const auto& offsets) {
      launch(operation, map_strided<F, kOperands, To, From...>, grid_for(layout.count), stream, f, layout,
             data_of<To>(out) + offsets[0], data_of<From>(in) + offsets[I + 1]...);
    });
  };
  run(std::index_sequence_for<In...>{});
}

/// A number as an element of T, as on the CPU: integers wrap around.
template <typename T>
__host__ __device__ inline T element(double value) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(static_cast<std::int64_t>(value));
  } else {
    return from_float<T>(static_cast<Scalar<T>>(value));
  }
}

}  // namespace millrace::cuda
