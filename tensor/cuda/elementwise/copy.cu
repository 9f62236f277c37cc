#include <cuda_runtime_api.h>

#include "tensor/cuda/elementwise.cuh"
#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/visit_size.h"

namespace millrace::cuda {

namespace {

constexpr int kTile = 32;
constexpr int kTileRows = 8;  // of a block: each thread moves four elements

template <typename Bits>
struct Same {
  __device__ Bits operator()(Bits x) const { return x; }
};

/// A matrix whose rows lie in neighbours in `source` and whose columns do in `out`, for each place of the
/// outer loops.
struct Transposition {
  std::int64_t rows, columns;  // along out's and along source's neighbours
  std::int64_t out_stride;     // between columns
  std::int64_t source_stride;  // between rows
  std::int64_t row_tiles, column_tiles;
  Layout<2> outer;
};

/// Tiles go through shared memory, so that both sides are read and written in neighbours.
template <typename Bits>
__global__ void transpose(Transposition t, const Bits* source, Bits* out) {
  __shared__ Bits tile[kTile][kTile + 1];  // one more, so that a column lies in 32 banks
  const int x = static_cast<int>(threadIdx.x) % kTile, y = static_cast<int>(threadIdx.x) / kTile;
  const std::int64_t tiles = t.row_tiles * t.column_tiles * t.outer.count;
  for (std::int64_t i = blockIdx.x; i < tiles; i += gridDim.x) {
    const std::int64_t first_row = i % t.row_tiles * kTile;
    const std::int64_t first_column = i / t.row_tiles % t.column_tiles * kTile;
    const auto start = t.outer.offsets(i / (t.row_tiles * t.column_tiles));
    for (int k = y; k < kTile; k += kTileRows) {
      if (first_row + k < t.rows && first_column + x < t.columns) {
        tile[k][x] = source[start.of[1] + (first_row + k) * t.source_stride + first_column + x];
      }
    }
    __syncthreads();
    for (int k = y; k < kTile; k += kTileRows) {
      if (first_column + k < t.columns && first_row + x < t.rows) {
        out[start.of[0] + (first_column + k) * t.out_stride + first_row + x] = tile[x][k];
      }
    }
    __syncthreads();
  }
}

/// Transposes where `out` and `source` have different dimensions of neighbours, both wide enough for tiles.
template <typename Bits>
bool try_transpose(const Nest<2>& nest, const Tensor& source, Tensor& out) {
  constexpr std::int64_t kWideEnough = 8;
  const auto dims = nest.dims();
  const auto column =
      std::find_if(dims.begin(), dims.end(), [](const auto& dim) { return dim.strides[1] == 1; });
  if (column == dims.end() || column == dims.begin() || dims[0].strides[0] != 1 ||
      dims[0].size < kWideEnough || column->size < kWideEnough) {
    return false;
  }
  std::vector<Nest<2>::Dim> outer(dims.begin() + 1, dims.end());
  outer.erase(outer.begin() + (column - dims.begin() - 1));
  std::int64_t count = 1;
  for (const auto& dim : outer) {
    count *= dim.size;
  }
  if (count > std::numeric_limits<std::int32_t>::max()) {
    return false;
  }
  const Transposition t{.rows = dims[0].size,
                        .columns = column->size,
                        .out_stride = column->strides[0],
                        .source_stride = dims[0].strides[1],
                        .row_tiles = (dims[0].size + kTile - 1) / kTile,
                        .column_tiles = (column->size + kTile - 1) / kTile,
                        .outer = Layout<2>(outer)};
  Grid grid = grid_for(t.row_tiles * t.column_tiles * count * kTile * kTileRows, kTile * kTileRows);
  launch("copy", transpose<Bits>, grid, stream_of(out), t, data_of<Bits>(source), data_of<Bits>(out));
  return true;
}

/// Elements of one size moved between any strides; the type does not matter.
template <typename Bits>
void move(const Tensor& source, Tensor& out) {
  const auto nest = nest_of(out.shape(), out, source);
  if (nest.empty()) {
    return;
  }
  if (nest.is_flat() && nest.row_is_dense()) {
    check(cudaMemcpyAsync(out.raw(), source.raw(), static_cast<std::size_t>(nest.row()) * sizeof(Bits),
                          cudaMemcpyDeviceToDevice, stream_of(out)),
          "copy");
  } else if (!try_transpose<Bits>(nest, source, out)) {
    map<Bits, Bits>("copy", Same<Bits>{}, out, source);
  }
}

template <typename To, typename From>
struct Converted {
  __device__ Scalar<To> operator()(Scalar<From> x) const {
    if constexpr (std::is_same_v<To, std::uint8_t> && std::is_floating_point_v<Scalar<From>>) {
      return static_cast<std::uint8_t>(static_cast<std::int32_t>(x));  // -1 wraps to 255, as from integers
    } else {
      return static_cast<Scalar<To>>(x);
    }
  }
};

}  // namespace

const KernelRow kCopy("copy", cuda::copy, {{"source", takes::kAll, Order::any}, takes::any("out")});
void copy(const Tensor& source, Tensor& out) {
  kCopy.check({&source, &out});
  if (source.dtype() == out.dtype()) {
    return visit_size(size_of(out.dtype()), [&]<typename Bits>() { move<Bits>(source, out); });
  }
  visit_types(source.dtype(), [&]<typename From>() {
    visit_types(out.dtype(), [&]<typename To>() {
      if constexpr (!std::is_same_v<From, To>) {
        map<To, From>("copy", Converted<To, From>{}, out, source);
      }
    });
  });
}

}  // namespace millrace::cuda
