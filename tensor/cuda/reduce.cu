#include <bit>
#include <vector>

#include "tensor/cuda/elementwise.cuh"
#include "tensor/cuda/scratch.cuh"
#include "tensor/kernels/reduce.h"

// Each block takes some outputs and, of what meets in them, one of several splits; lanes of threads share an
// output. Who adds what follows from shapes and strides alone, so every run adds in one order. Sums are taken
// in f64 (floating types) or i64, as on the CPU.
namespace millrace::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kBlocks = 528;    // four for each processor of an H100
constexpr std::int64_t kPerThread = 16;  // elements, at least, where there are enough

/// `start` changes nothing; `lift` makes an accumulator of an element and its place among those that meet.
template <typename A>
struct Sum {
  using Accumulator = A;
  __device__ static A start() { return 0; }
  template <typename T>
  __device__ static A lift(T x, std::int64_t) {
    return static_cast<A>(to_float(x));
  }
  __device__ static A combine(A a, A b) { return a + b; }
};

template <typename A, bool kMax>
struct Extreme {
  using Accumulator = A;
  __device__ static A start() {
    using L = std::numeric_limits<A>;
    if constexpr (L::has_infinity) {
      return kMax ? -L::infinity() : L::infinity();
    } else {
      return kMax ? L::lowest() : L::max();
    }
  }
  template <typename T>
  __device__ static A lift(T x, std::int64_t) {
    return to_float(x);
  }
  /// Not a number wins.
  __device__ static A combine(A a, A b) { return (kMax ? a > b : a < b) | (a != a) ? a : b; }
};

template <typename S>
struct Winner {
  S value;
  std::int64_t place;  ///< Negative: none yet.
};

/// The first not-a-number wins, else the first of the largest.
template <typename S>
struct ArgMax {
  using Accumulator = Winner<S>;
  __device__ static Winner<S> start() { return {S{}, -1}; }
  template <typename T>
  __device__ static Winner<S> lift(T x, std::int64_t place) {
    return {to_float(x), place};
  }
  __device__ static Winner<S> combine(const Winner<S>& a, const Winner<S>& b) {
    if (a.place < 0 || b.place < 0) {
      return a.place < 0 ? b : a;
    }
    const bool a_is_nan = a.value != a.value, b_is_nan = b.value != b.value;
    const bool tie = a_is_nan ? b_is_nan : a.value == b.value;
    return (tie ? a.place < b.place : a_is_nan || a.value > b.value) ? a : b;
  }
};

/// Writes the accumulator as what `dtype` says.
template <typename A>
__device__ void write(A value, void* out, DType dtype, std::int64_t i) {
  const auto put = [&]<typename T>(T*) {
    static_cast<T*>(out)[i] = from_float<T>(static_cast<Scalar<T>>(value));
  };
  switch (dtype) {
    case DType::f32:
      return put(static_cast<float*>(nullptr));
    case DType::f64:
      return put(static_cast<double*>(nullptr));
    case DType::f16:
      return put(static_cast<__half*>(nullptr));
    case DType::bf16:
      return put(static_cast<__nv_bfloat16*>(nullptr));
    case DType::u8:
      return put(static_cast<std::uint8_t*>(nullptr));
    case DType::i32:
      return put(static_cast<std::int32_t*>(nullptr));
    case DType::i64:
      return put(static_cast<std::int64_t*>(nullptr));
  }
}
template <typename S>
__device__ void write(const Winner<S>& winner, void* out, DType, std::int64_t i) {
  static_cast<std::int64_t*>(out)[i] = winner.place;
}

/// How a block's threads are dealt out: `lanes`, a power of two, to each output.
struct Threads {
  int lanes;
  bool outputs_are_neighbours;  ///< Neighbouring threads read for neighbouring outputs, else for one.

  __host__ __device__ int outputs() const { return kThreads / lanes; }
  __device__ int output() const {
    const auto thread = static_cast<int>(threadIdx.x);
    return outputs_are_neighbours ? thread % outputs() : thread / lanes;
  }
  __device__ int lane() const {
    const auto thread = static_cast<int>(threadIdx.x);
    return outputs_are_neighbours ? thread / outputs() : thread % lanes;
  }
};

/// `kept` has the strides of x and of out, and `first` is added to an element's place. Where `parts` is
/// given, each split's result goes there, one row of outputs a split, and else to `out`. With `joins`, x is
/// such rows.
template <typename Op, typename T>
__global__ void reduce_kernel(const T* __restrict__ x, Layout<2> kept, Layout<1> reduced, std::int64_t first,
                              bool joins, Threads threads, typename Op::Accumulator* __restrict__ parts,
                              void* __restrict__ out, DType dtype) {
  using A = typename Op::Accumulator;
  __shared__ A slots[kThreads];
  const std::int64_t output = static_cast<std::int64_t>(blockIdx.x) * threads.outputs() + threads.output();
  const int lane = threads.lane();
  const auto offsets = output < kept.count ? kept.offsets(output) : typename Layout<2>::Offsets{};
  A total = Op::start();
  if (output < kept.count) {
    const T* const from = x + (joins ? output : offsets.of[0]);
    const std::int64_t span = (reduced.count + gridDim.y - 1) / gridDim.y;
    const std::int64_t begin = span * blockIdx.y, end = min(begin + span, reduced.count);
#pragma unroll 4
    for (std::int64_t i = begin + lane; i < end; i += threads.lanes) {
      const T& element = from[reduced.offsets(i).of[0]];
      if constexpr (std::is_same_v<T, A>) {
        total = Op::combine(total, element);
      } else {
        total = Op::combine(total, Op::lift(element, first + i));
      }
    }
  }
  A* const own = slots + threads.output() * threads.lanes;
  own[lane] = total;
  for (int step = threads.lanes / 2; step > 0; step /= 2) {
    __syncthreads();
    if (lane < step) {
      own[lane] = Op::combine(own[lane], own[lane + step]);
    }
  }
  if (lane == 0 && output < kept.count) {
    if (parts != nullptr) {
      parts[static_cast<std::int64_t>(blockIdx.y) * kept.count + output] = own[0];
    } else {
      write(own[0], out, dtype, offsets.of[1]);
    }
  }
}

/// How one launch deals out the work: `count` elements meet in each of `outputs`.
struct Plan {
  Threads threads;
  Grid grid;

  Plan(std::int64_t outputs, std::int64_t count, bool outputs_are_neighbours) {
    const auto ceiling = [](std::int64_t n, std::int64_t most) {
      return static_cast<int>(
          std::bit_ceil(static_cast<std::uint64_t>(std::clamp<std::int64_t>(n, 1, most))));
    };
    const int lanes = outputs_are_neighbours ? kThreads / ceiling(outputs, 32) : ceiling(count, kThreads);
    threads = {lanes, outputs_are_neighbours};
    const std::int64_t blocks = (outputs + threads.outputs() - 1) / threads.outputs();
    const std::int64_t splits = std::clamp<std::int64_t>(count / (lanes * kPerThread), 1,
                                                         std::max<std::int64_t>(kBlocks / blocks, 1));
    grid = {.blocks = blocks, .rows = splits, .threads = kThreads};
  }
};

/// A part of what meets in each output, of fewer than 2^31 elements.
struct Part {
  Layout<1> layout;
  std::int64_t offset;
  Plan plan;
};

std::vector<Part> parts_of(const Nest<1>& reduced, const Layout<2>& outputs, bool outputs_are_neighbours) {
  std::vector<Part> parts;
  if (reduced.empty()) {
    parts.push_back({Layout<1>({}), 0, Plan(outputs.count, 0, outputs_are_neighbours)});
    parts[0].layout.count = 0;
    return parts;
  }
  for_each_part<1>(reduced.dims(), [&](const Layout<1>& layout, const auto& start) {
    parts.push_back({layout, start[0], Plan(outputs.count, layout.count, outputs_are_neighbours)});
  });
  return parts;
}

/// Axes of size 1 in `out` are reduced.
template <typename Op, typename T>
void run(const char* operation, const Tensor& x, Tensor& out) {
  const cudaStream_t stream = stream_of(out);
  Shape reduced_shape = x.shape();
  for (int i = 0; i < x.dim(); ++i) {
    reduced_shape[i] = out.shape()[i] == 1 ? x.shape()[i] : 1;
  }
  const Nest<2> kept(out.shape(), {&x.strides(), &out.strides()});
  const Nest<1> reduced(reduced_shape, {&x.strides()});
  if (kept.empty()) {
    return;
  }
  const bool outputs_are_neighbours = !kept.dims().empty() && kept.row_strides()[0] == 1 &&
                                      (reduced.dims().empty() || reduced.row_strides()[0] != 1);
  for_each_part<2>(kept.dims(), [&](const Layout<2>& outputs, const auto& start) {
    void* const to = out.raw() + start[1] * static_cast<std::int64_t>(size_of(out.dtype()));
    const std::vector<Part> parts = parts_of(reduced, outputs, outputs_are_neighbours);
    std::int64_t rows = 0;
    for (const Part& part : parts) {
      rows += part.plan.grid.rows;
    }
    const Scratch<typename Op::Accumulator> scratch(rows == 1 ? 0 : rows * outputs.count, x.device());
    std::int64_t row = 0, first = 0;
    for (const Part& part : parts) {
      launch(operation, reduce_kernel<Op, T>, part.plan.grid, stream, data_of<T>(x) + start[0] + part.offset,
             outputs, part.layout, first, false, part.plan.threads,
             rows == 1 ? nullptr : scratch.data() + row * outputs.count, to, out.dtype());
      row += part.plan.grid.rows;
      first += part.layout.count;
    }
    if (rows > 1) {
      const Nest<1>::Dim column{.size = rows, .strides = {outputs.count}};
      Plan plan(outputs.count, rows, outputs.count > 1);
      plan.grid.rows = 1;
      launch(operation, reduce_kernel<Op, typename Op::Accumulator>, plan.grid, stream, scratch.data(),
             outputs, Layout<1>(std::span(&column, 1)), 0, true, plan.threads, nullptr, to, out.dtype());
    }
  });
}

}  // namespace

const KernelRow kReduce("reduce", cuda::reduce, {{"x", takes::kAll, Order::any}, takes::any("out")});
void reduce(ReduceOp op, const Tensor& x, Tensor& out) {
  kReduce.check({&x, &out});
  visit_types(x.dtype(), [&]<typename T>() {
    using S = Scalar<T>;
    switch (op) {
      case ReduceOp::sum:
        return run<Sum<std::conditional_t<std::is_integral_v<T>, std::int64_t, double>>, T>("sum", x, out);
      case ReduceOp::max:
        return run<Extreme<S, true>, T>("max", x, out);
      case ReduceOp::min:
        return run<Extreme<S, false>, T>("min", x, out);
    }
  });
}

const KernelRow kArgmax("argmax", cuda::argmax,
                        {{"x", takes::kAll, Order::any}, {"out", takes::kI64, Order::any}});
void argmax(const Tensor& x, int, Tensor& out) {
  kArgmax.check({&x, &out});
  visit_types(x.dtype(), [&]<typename T>() { run<ArgMax<Scalar<T>>, T>("argmax", x, out); });
}

}  // namespace millrace::cuda
