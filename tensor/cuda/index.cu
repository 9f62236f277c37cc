#include <vector>

#include "tensor/cuda/check_index.cuh"
#include "tensor/cuda/elementwise.cuh"
#include "tensor/kernels/index.h"
#include "tensor/kernels/visit_size.h"

namespace millrace::cuda {
namespace {

/// Calls `f` with a type of `bytes`: an element's, or 16 where neighbours travel as one.
template <typename F>
void visit_width(std::size_t bytes, F&& f) {
  if (bytes == 16) {
    return f.template operator()<Pack<std::uint64_t, 2>>();
  }
  visit_size(bytes, f);
}

/// `strides` without the step along `dim`.
Strides strides_but(Strides strides, int dim) {
  strides[dim] = 0;
  return strides;
}

/// `layout` has the strides of out, of x but for the chosen dimension, and of the index. An index out of
/// range gives 0.
template <typename T>
__global__ void pick(Indexing operation, const T* __restrict__ x, std::int64_t stride, std::int64_t size,
                     const std::int64_t* __restrict__ index, Layout<3> layout, T* __restrict__ out,
                     Fault* fault) {
  for (const std::int64_t i : grid_range(layout.count)) {
    const auto offsets = layout.offsets(i);
    const std::int64_t place = index[offsets.of[2]];
    const bool fits = check_index(fault, operation, offsets.of[2], place, size);
    out[offsets.of[0]] = fits ? x[offsets.of[1] + place * stride] : T{};
  }
}

/// How many elements can travel as one: neighbours with one index, in 16 bytes.
std::int64_t width_of(const std::vector<Nest<3>::Dim>& loops, std::int64_t stride, const Tensor& x,
                      const Tensor& out) {
  const auto width = static_cast<std::int64_t>(16 / size_of(x.dtype()));
  if (loops.empty() || loops[0].strides != Nest<3>::Offsets{1, 1, 0} || loops[0].size % width != 0 ||
      stride % width != 0 || !is_aligned(x.raw()) || !is_aligned(out.raw())) {
    return 1;
  }
  const bool fits = std::all_of(loops.begin() + 1, loops.end(), [&](const auto& loop) {
    return loop.strides[0] % width == 0 && loop.strides[1] % width == 0;
  });
  return fits ? width : 1;
}

/// out[..., i, ...] = x[..., index[..., i, ...], ...]
void pick_along(Indexing operation, const char* name, const Tensor& x, int dim, const Tensor& index,
                const Strides& index_strides, Tensor& out) {
  const Strides x_strides = strides_but(x.strides(), dim);
  const Nest<3> nest(out.shape(), {&out.strides(), &x_strides, &index_strides});
  if (nest.empty()) {
    return;
  }
  std::vector<Nest<3>::Dim> loops(nest.dims().begin(), nest.dims().end());
  std::int64_t stride = x.strides()[dim];
  const std::int64_t width = width_of(loops, stride, x, out);
  if (width > 1) {
    loops[0].size /= width;
    stride /= width;
    for (auto loop = loops.begin() + 1; loop != loops.end(); ++loop) {
      loop->strides[0] /= width;
      loop->strides[1] /= width;
    }
  }
  visit_width(size_of(x.dtype()) * static_cast<std::size_t>(width), [&]<typename T>() {
    for_each_part<3>(loops, [&](const Layout<3>& layout, const auto& start) {
      launch(name, pick<T>, grid_for(layout.count), stream_of(out), operation, data_of<T>(x) + start[1],
             stride, x.shape()[dim], index.data<std::int64_t>() + start[2], layout,
             data_of<T>(out) + start[0], fault_of(out.device().index));
    });
  });
}

/// A thread adds all that goes into one line along the dimension, in order: the bits of the CPU, without
/// atomics. A single long line takes its time. `lines` has the strides of source, index and into.
template <typename T>
__global__ void add_lines(const T* __restrict__ source, std::int64_t source_stride,
                          const std::int64_t* __restrict__ index, std::int64_t index_stride,
                          std::int64_t count, Layout<3> lines, T* __restrict__ into, std::int64_t into_stride,
                          std::int64_t size, Fault* fault) {
  for (const std::int64_t line : grid_range(lines.count)) {
    const auto offsets = lines.offsets(line);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t row = offsets.of[1] + i * index_stride, place = index[row];
      if (check_index(fault, Indexing::scatter_add, row, place, size)) {
        T& sum = into[offsets.of[2] + place * into_stride];
        const Scalar<T> added = to_float(source[offsets.of[0] + i * source_stride]);
        sum = from_float<T>(static_cast<Scalar<T>>(to_float(sum) + added));
      }
    }
  }
}

}  // namespace

const KernelRow kIndexSelect("index_select", cuda::index_select,
                             {takes::like_out("x"), {"index", takes::kI64, Order::any}, takes::any("out")});
void index_select(const Tensor& x, int dim, const Tensor& index, Tensor& out) {
  kIndexSelect.check({&x, &index, &out});
  Strides strides = out.strides();
  std::fill(strides.begin(), strides.end(), 0);
  strides[dim] = index.strides()[0];
  pick_along(Indexing::index_select, "index_select", x, dim, index, strides, out);
}

const KernelRow kGather("gather", cuda::gather,
                        {takes::like_out("x"), {"index", takes::kI64, Order::any}, takes::any("out")});
void gather(const Tensor& x, int dim, const Tensor& index, Tensor& out) {
  kGather.check({&x, &index, &out});
  pick_along(Indexing::gather, "gather", x, dim, index, index.strides(), out);
}

const KernelRow kScatterAdd("scatter_add", cuda::scatter_add,
                            {{"into", takes::kAll, Order::any},
                             {"index", takes::kI64, Order::any},
                             {"source", takes::kAll, Order::any, "into"}});
void scatter_add(Tensor& into, int dim, const Tensor& index, const Tensor& source) {
  kScatterAdd.check({&into, &index, &source});
  Shape line = index.shape();
  const std::int64_t count = line[dim];
  line[dim] = 1;
  const Nest<3> nest(line, {&source.strides(), &index.strides(), &into.strides()});
  if (nest.empty() || count == 0) {
    return;
  }
  visit_types(into.dtype(), [&]<typename T>() {
    for_each_part<3>(nest.dims(), [&](const Layout<3>& lines, const auto& start) {
      launch("scatter_add_", add_lines<T>, grid_for(lines.count), stream_of(into),
             data_of<T>(source) + start[0], source.strides()[dim], index.data<std::int64_t>() + start[1],
             index.strides()[dim], count, lines, data_of<T>(into) + start[2], into.strides()[dim],
             into.shape()[dim], fault_of(into.device().index));
    });
  });
}

}  // namespace millrace::cuda
