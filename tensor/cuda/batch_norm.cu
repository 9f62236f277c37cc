#include <algorithm>

#include "tensor/cuda/channels.cuh"
#include "tensor/cuda/scratch.cuh"
#include "tensor/kernels/norm.h"

// Rows are pixels, columns channels. Sums run in f32 within a block, then in f64 over the blocks: one pass
// over memory. How many blocks share the rows follows from the shape alone, so that every run adds in one
// order.
namespace millrace::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kBlocks = 528;       // four for each processor of an H100
constexpr std::int64_t kRowsPerThread = 8;  // at least, where there are rows enough

/// What each block does: `width` packs of channels of `span` rows, `height` rows at a time.
struct Tile {
  std::int64_t rows, span;
  int packs, width, height, tiles, splits;

  static Tile of(const Tensor& x, int pack) {
    const std::int64_t channels = x.size(1), packs = channels / pack;
    const std::int64_t rows = x.numel() / channels, tiles = (packs + 31) / 32;
    const std::int64_t width = (packs + tiles - 1) / tiles, height = kThreads / width;
    const std::int64_t wanted = std::clamp<std::int64_t>(rows / (height * kRowsPerThread), 1,
                                                         std::max<std::int64_t>(kBlocks / tiles, 1));
    const std::int64_t span = std::max<std::int64_t>((rows + wanted - 1) / wanted, 1);
    const std::int64_t splits = (rows + span - 1) / span;
    return {rows,
            span,
            static_cast<int>(packs),
            static_cast<int>(width),
            static_cast<int>(height),
            static_cast<int>(tiles),
            static_cast<int>(splits)};
  }

  Grid grid() const { return {.blocks = std::int64_t{tiles} * splits, .threads = kThreads}; }
  __device__ int split() const { return static_cast<int>(blockIdx.x) / tiles; }
  /// This thread's pack of channels; `packs` or more when it has none.
  __device__ int pack() const {
    const int y = static_cast<int>(threadIdx.x) / width;
    return y < height ? static_cast<int>(blockIdx.x) % tiles * width + static_cast<int>(threadIdx.x) % width
                      : packs;
  }
  __device__ int row() const { return static_cast<int>(threadIdx.x) / width; }
  __device__ std::int64_t begin() const { return split() * span + row(); }
  __device__ std::int64_t end() const { return min((split() + 1) * span, rows); }
};

/// Joins the values of the block's `height` rows of `width` threads; row 0 has the result. All threads must
/// come here.
template <int N, typename A>
__device__ void join_rows(int width, int height, A (&values)[N]) {
  __shared__ A slots[N][kThreads];
  const int thread = static_cast<int>(threadIdx.x), y = thread / width;
  for (int k = 0; k < N; ++k) {
    slots[k][thread] = values[k];
  }
  for (int step = kThreads / 2; step > 0; step /= 2) {
    __syncthreads();
    if (y < step && y + step < height) {
      for (int k = 0; k < N; ++k) {
        slots[k][thread] = join(slots[k][thread], slots[k][thread + step * width]);
      }
    }
  }
  for (int k = 0; k < N; ++k) {
    values[k] = slots[k][thread];
  }
}

template <typename F>
struct Moments {
  F count, mean, squares;
};
/// Chan, Golub and LeVeque's update.
template <typename F>
__device__ Moments<F> join(const Moments<F>& a, const Moments<F>& b) {
  const F count = a.count + b.count;
  if (b.count == 0) {
    return a;
  }
  const F distance = b.mean - a.mean, share = b.count / count;
  return {count, a.mean + distance * share, a.squares + b.squares + distance * distance * (a.count * share)};
}

template <typename F>
struct Sums {
  F sum, product;
};
template <typename F>
__device__ Sums<F> join(const Sums<F>& a, const Sums<F>& b) {
  return {a.sum + b.sum, a.product + b.product};
}

/// Welford's moments of x less the channel's first value, which keeps a large mean from cancelling.
template <int N, typename T>
__global__ void block_moments(const T* __restrict__ x, Tile tile, Moments<float>* __restrict__ parts) {
  const int pack = tile.pack();
  Moments<float> moments[N] = {};
  if (pack < tile.packs) {
    float shift[N], mean[N] = {}, squares[N] = {}, count = 0;
    const auto first = load_pack<T, N>(x + std::int64_t{pack} * N);
    for (int k = 0; k < N; ++k) {
      shift[k] = to_float(first.at[k]);
    }
    for (std::int64_t row = tile.begin(); row < tile.end(); row += tile.height) {
      const auto values = load_pack<T, N>(x + (row * tile.packs + pack) * N);
      count += 1;
      const float share = 1.0f / count;
      for (int k = 0; k < N; ++k) {
        const float value = to_float(values.at[k]) - shift[k], distance = value - mean[k];
        mean[k] += distance * share;
        squares[k] += distance * (value - mean[k]);
      }
    }
    for (int k = 0; k < N; ++k) {
      moments[k] = {count, mean[k], squares[k]};
    }
  }
  join_rows(tile.width, tile.height, moments);
  if (pack < tile.packs && tile.row() == 0) {
    for (int k = 0; k < N; ++k) {
      parts[(std::int64_t{tile.split()} * tile.packs + pack) * N + k] = moments[k];
    }
  }
}

/// Per channel: the sum of the gradient, and of the gradient times (x - mean).
template <int N, typename T>
__global__ void block_sums(const T* __restrict__ grad, const T* __restrict__ x,
                           const float* __restrict__ mean, Tile tile, Sums<float>* __restrict__ parts) {
  const int pack = tile.pack();
  Sums<float> sums[N] = {};
  if (pack < tile.packs) {
    float center[N];
    for (int k = 0; k < N; ++k) {
      center[k] = mean[std::int64_t{pack} * N + k];
    }
    for (std::int64_t row = tile.begin(); row < tile.end(); row += tile.height) {
      const std::int64_t place = (row * tile.packs + pack) * N;
      const auto g = load_pack<T, N>(grad + place), values = load_pack<T, N>(x + place);
      for (int k = 0; k < N; ++k) {
        const float slope = to_float(g.at[k]);
        sums[k].sum += slope;
        sums[k].product += slope * (to_float(values.at[k]) - center[k]);
      }
    }
  }
  join_rows(tile.width, tile.height, sums);
  if (pack < tile.packs && tile.row() == 0) {
    for (int k = 0; k < N; ++k) {
      parts[(std::int64_t{tile.split()} * tile.packs + pack) * N + k] = sums[k];
    }
  }
}

// The blocks' results meet in f64: a block has kLanes threads for each of kThreads / kLanes channels.
constexpr int kLanes = 64;
constexpr int kColumns = kThreads / kLanes;

/// Joins part(0), part(1), ... part(splits - 1) of a channel; the threads of lane 0 have the result.
template <typename A, typename F>
__device__ A join_splits(int splits, bool active, F&& part) {
  A total[1] = {};
  for (int split = static_cast<int>(threadIdx.x) / kColumns; active && split < splits; split += kLanes) {
    total[0] = join(total[0], part(split));
  }
  join_rows(kColumns, kLanes, total);
  return total[0];
}

__device__ int channel_of_thread() {
  return static_cast<int>(blockIdx.x) * kColumns + static_cast<int>(threadIdx.x) % kColumns;
}

template <typename T>
__global__ void finish_moments(const Moments<float>* __restrict__ parts, const T* __restrict__ x, int splits,
                               int channels, float* __restrict__ mean, float* __restrict__ var) {
  const int c = channel_of_thread();
  const auto total = join_splits<Moments<double>>(splits, c < channels, [&](int split) {
    const Moments<float> part = parts[std::int64_t{split} * channels + c];
    return Moments<double>{part.count, part.mean, part.squares};
  });
  if (c < channels && threadIdx.x < kColumns) {
    mean[c] = splits == 0 ? 0.0f : static_cast<float>(to_float(x[c]) + total.mean);
    var[c] = splits == 0 ? 0.0f : static_cast<float>(total.squares / total.count);
  }
}

/// out = grad * scale + (x - mean) * slope + offset, each a vector of channels.
struct Coefficients {
  float scale, slope, offset;
};

__global__ void finish_sums(const Sums<float>* __restrict__ parts, int splits, int channels, double rows,
                            const float* __restrict__ var, double eps, const float* __restrict__ weight,
                            bool training, Coefficients* __restrict__ coefficients,
                            float* __restrict__ grad_weight, float* __restrict__ grad_bias) {
  const int c = channel_of_thread();
  const auto total = join_splits<Sums<double>>(splits, c < channels, [&](int split) {
    const Sums<float> part = parts[std::int64_t{split} * channels + c];
    return Sums<double>{part.sum, part.product};
  });
  if (c >= channels || threadIdx.x >= kColumns) {
    return;
  }
  const double inverse = 1.0 / sqrt(var[c] + eps);
  const double scale = inverse * (weight != nullptr ? weight[c] : 1.0f);
  const double per_row = training ? scale / max(rows, 1.0) : 0.0;
  coefficients[c] = {static_cast<float>(scale),
                     static_cast<float>(-per_row * total.product * inverse * inverse),
                     static_cast<float>(-per_row * total.sum)};
  if (grad_weight != nullptr) {
    grad_weight[c] = static_cast<float>(total.product * inverse);
  }
  if (grad_bias != nullptr) {
    grad_bias[c] = static_cast<float>(total.sum);
  }
}

/// No __restrict__ on grad and grad_x: they may be one tensor.
template <int N, typename T>
__global__ void gradient(const T* grad, const T* __restrict__ x, const float* __restrict__ mean,
                         const Coefficients* __restrict__ coefficients, Tile tile, T* grad_x) {
  const int pack = tile.pack();
  if (pack >= tile.packs) {
    return;
  }
  float center[N];
  Coefficients by[N];
  for (int k = 0; k < N; ++k) {
    center[k] = mean[std::int64_t{pack} * N + k];
    by[k] = coefficients[std::int64_t{pack} * N + k];
  }
  for (std::int64_t row = tile.begin(); row < tile.end(); row += tile.height) {
    const std::int64_t place = (row * tile.packs + pack) * N;
    const auto g = load_pack<T, N>(grad + place), values = load_pack<T, N>(x + place);
    Pack<T, N> result;
    for (int k = 0; k < N; ++k) {
      const float distance = to_float(values.at[k]) - center[k];
      result.at[k] = from_float<T>(to_float(g.at[k]) * by[k].scale + (distance * by[k].slope + by[k].offset));
    }
    store_pack(grad_x + place, result);
  }
}

/// out = (x - mean) * scale + shift
template <int N, typename T>
__global__ void apply(const T* __restrict__ x, const float* __restrict__ mean, const float* __restrict__ var,
                      float eps, const float* __restrict__ weight, const float* __restrict__ bias, Tile tile,
                      T* __restrict__ out) {
  const int pack = tile.pack();
  if (pack >= tile.packs) {
    return;
  }
  float center[N], scale[N], shift[N];
  for (int k = 0; k < N; ++k) {
    const std::int64_t c = std::int64_t{pack} * N + k;
    center[k] = mean[c];
    scale[k] = (weight != nullptr ? weight[c] : 1.0f) / sqrtf(var[c] + eps);
    shift[k] = bias != nullptr ? bias[c] : 0.0f;
  }
  for (std::int64_t row = tile.begin(); row < tile.end(); row += tile.height) {
    const std::int64_t place = (row * tile.packs + pack) * N;
    const auto values = load_pack<T, N>(x + place);
    Pack<T, N> result;
    for (int k = 0; k < N; ++k) {
      result.at[k] = from_float<T>((to_float(values.at[k]) - center[k]) * scale[k] + shift[k]);
    }
    store_pack(out + place, result);
  }
}

Grid grid_of_channels(std::int64_t channels) {
  return {.blocks = (channels + kColumns - 1) / kColumns, .threads = kThreads};
}

const float* floats_of(const Tensor& vector) { return vector.defined() ? vector.data<float>() : nullptr; }
float* floats_of(Tensor& vector) { return vector.defined() ? vector.data<float>() : nullptr; }

}  // namespace

const KernelRow kBatchNormStatistics("batch_norm_statistics", cuda::batch_norm_statistics,
                                     {takes::image("x"), takes::vector("mean"), takes::vector("var")});
void batch_norm_statistics(const Tensor& x, Tensor& mean, Tensor& var) {
  kBatchNormStatistics.check({&x, &mean, &var});
  const std::int64_t channels = x.size(1);
  if (channels == 0) {
    return;
  }
  visit_activations(x.dtype(), "batch_norm", [&]<typename T>() {
    visit_pack<T>(
        channels,
        [&]<int N>() {
          const Tile tile = Tile::of(x, N);
          const Scratch<Moments<float>> parts(tile.splits * channels, x.device());
          if (tile.splits > 0) {
            launch("batch_norm statistics", block_moments<N, T>, tile.grid(), stream_of(mean), data_of<T>(x),
                   tile, parts.data());
          }
          launch("batch_norm statistics", finish_moments<T>, grid_of_channels(channels), stream_of(mean),
                 parts.data(), data_of<T>(x), tile.splits, static_cast<int>(channels), mean.data<float>(),
                 var.data<float>());
        },
        x);
  });
}

const KernelRow kBatchNormApply("batch_norm_apply", cuda::batch_norm_apply,
                                {takes::image("x"), takes::vector("mean"), takes::vector("var"),
                                 takes::maybe_vector("weight"), takes::maybe_vector("bias"),
                                 takes::image_like("x", "out")});
void batch_norm_apply(const Tensor& x, const Tensor& mean, const Tensor& var, double eps,
                      const Tensor& weight, const Tensor& bias, Tensor& out) {
  kBatchNormApply.check({&x, &mean, &var, &weight, &bias, &out});
  if (x.numel() == 0) {
    return;
  }
  visit_activations(x.dtype(), "batch_norm", [&]<typename T>() {
    visit_pack<T>(
        x.size(1),
        [&]<int N>() {
          const Tile tile = Tile::of(x, N);
          launch("batch_norm", apply<N, T>, tile.grid(), stream_of(out), data_of<T>(x), mean.data<float>(),
                 var.data<float>(), static_cast<float>(eps), floats_of(weight), floats_of(bias), tile,
                 data_of<T>(out));
        },
        x, out);
  });
}

const KernelRow kBatchNormBackward("batch_norm_backward", cuda::batch_norm_backward,
                                   {takes::image_like("x", "grad"), takes::image("x"), takes::vector("mean"),
                                    takes::vector("var"), takes::maybe_vector("weight"),
                                    takes::maybe_image_like("x", "grad_x"),
                                    takes::maybe_vector("grad_weight"), takes::maybe_vector("grad_bias")});
void batch_norm_backward(const Tensor& grad, const Tensor& x, const Tensor& mean, const Tensor& var,
                         double eps, const Tensor& weight, bool training, Tensor& grad_x, Tensor& grad_weight,
                         Tensor& grad_bias) {
  kBatchNormBackward.check({&grad, &x, &mean, &var, &weight, &grad_x, &grad_weight, &grad_bias});
  const std::int64_t channels = x.size(1);
  if (channels == 0) {
    return;
  }
  const cudaStream_t stream = stream_of(x);
  const bool needs_sums = training || grad_weight.defined() || grad_bias.defined();
  const Scratch<Coefficients> coefficients(channels, x.device());
  visit_activations(x.dtype(), "batch_norm", [&]<typename T>() {
    visit_pack<T>(
        channels,
        [&]<int N>() {
          const Tile tile = Tile::of(x, N);
          const int splits = needs_sums ? tile.splits : 0;
          const Scratch<Sums<float>> parts(splits * channels, x.device());
          if (splits > 0) {
            launch("batch_norm backward", block_sums<N, T>, tile.grid(), stream, data_of<T>(grad),
                   data_of<T>(x), mean.data<float>(), tile, parts.data());
          }
          launch("batch_norm backward", finish_sums, grid_of_channels(channels), stream, parts.data(), splits,
                 static_cast<int>(channels), static_cast<double>(tile.rows), var.data<float>(), eps,
                 floats_of(weight), training, coefficients.data(), floats_of(grad_weight),
                 floats_of(grad_bias));
          if (grad_x.defined() && tile.splits > 0) {
            launch("batch_norm backward", gradient<N, T>, tile.grid(), stream, data_of<T>(grad),
                   data_of<T>(x), mean.data<float>(), coefficients.data(), tile, data_of<T>(grad_x));
          }
        },
        grad, x, grad_x);
  });
}

}  // namespace millrace::cuda
