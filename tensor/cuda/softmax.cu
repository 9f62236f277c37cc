#include "tensor/cuda/rows.cuh"
#include "tensor/kernels/rows.h"

namespace millrace::cuda {
namespace {

template <typename T>
__global__ void softmax_forward(const T* __restrict__ x, std::int64_t rows, std::int64_t columns,
                                T* __restrict__ out) {
  for_each_row(rows, [&](std::int64_t row) {
    const T* const in = x + row * columns;
    const float high = highest(in, columns);
    const float scale = 1.0f / sum_of(columns, [&](std::int64_t c) { return expf(to_float(in[c]) - high); });
    for_each_column(columns, [&](std::int64_t c) {
      out[row * columns + c] = from_float<T>(expf(to_float(in[c]) - high) * scale);
    });
  });
}

template <typename T>
__global__ void softmax_gradient(const T* __restrict__ grad, const T* __restrict__ out, std::int64_t rows,
                                 std::int64_t columns, T* __restrict__ grad_x) {
  for_each_row(rows, [&](std::int64_t row) {
    const T* const g = grad + row * columns;
    const T* const y = out + row * columns;
    const float dot = sum_of(columns, [&](std::int64_t c) { return to_float(g[c]) * to_float(y[c]); });
    for_each_column(columns, [&](std::int64_t c) {
      grad_x[row * columns + c] = from_float<T>(to_float(y[c]) * (to_float(g[c]) - dot));
    });
  });
}

template <typename T, typename Out>
__global__ void log_softmax_forward(const T* __restrict__ x, std::int64_t rows, std::int64_t columns,
                                    Out* __restrict__ out) {
  for_each_row(rows, [&](std::int64_t row) {
    const T* const in = x + row * columns;
    const LogSoftmax of = log_softmax_of(in, columns);
    for_each_column(columns,
                    [&](std::int64_t c) { out[row * columns + c] = from_float<Out>(of(to_float(in[c]))); });
  });
}

template <typename T>
__global__ void log_softmax_gradient(const T* __restrict__ grad, const T* __restrict__ out, std::int64_t rows,
                                     std::int64_t columns, T* __restrict__ grad_x) {
  for_each_row(rows, [&](std::int64_t row) {
    const T* const g = grad + row * columns;
    const T* const y = out + row * columns;
    const float sum = sum_of(columns, [&](std::int64_t c) { return to_float(g[c]); });
    for_each_column(columns, [&](std::int64_t c) {
      grad_x[row * columns + c] = from_float<T>(to_float(g[c]) - expf(to_float(y[c])) * sum);
    });
  });
}

}  // namespace

const KernelRow kSoftmax("softmax", cuda::softmax, {takes::rows("x"), takes::rows("out", "x")});
void softmax(const Tensor& x, Tensor& out) {
  kSoftmax.check({&x, &out});
  visit_activations(x.dtype(), "softmax", [&]<typename T>() {
    launch("softmax", softmax_forward<T>, grid_of_rows(x), stream_of(out), data_of<T>(x), x.size(0),
           x.size(1), data_of<T>(out));
  });
}

const KernelRow kSoftmaxBackward("softmax_backward", cuda::softmax_backward,
                                 {takes::rows("grad", "out"), takes::rows("out"),
                                  takes::rows("grad_x", "out")});
void softmax_backward(const Tensor& grad, const Tensor& out, Tensor& grad_x) {
  kSoftmaxBackward.check({&grad, &out, &grad_x});
  visit_activations(out.dtype(), "softmax", [&]<typename T>() {
    launch("softmax backward", softmax_gradient<T>, grid_of_rows(out), stream_of(grad_x), data_of<T>(grad),
           data_of<T>(out), out.size(0), out.size(1), data_of<T>(grad_x));
  });
}

const KernelRow kLogSoftmax("log_softmax", cuda::log_softmax, {takes::rows("x"), takes::rows("out")});
void log_softmax(const Tensor& x, Tensor& out) {
  kLogSoftmax.check({&x, &out});
  visit_activations(x.dtype(), "log_softmax", [&]<typename T>() {
    visit_activations(out.dtype(), "log_softmax", [&]<typename Out>() {
      launch("log_softmax", log_softmax_forward<T, Out>, grid_of_rows(x), stream_of(out), data_of<T>(x),
             x.size(0), x.size(1), data_of<Out>(out));
    });
  });
}

const KernelRow kLogSoftmaxBackward("log_softmax_backward", cuda::log_softmax_backward,
                                    {takes::rows("grad", "out"), takes::rows("out"),
                                     takes::rows("grad_x", "out")});
void log_softmax_backward(const Tensor& grad, const Tensor& out, Tensor& grad_x) {
  kLogSoftmaxBackward.check({&grad, &out, &grad_x});
  visit_activations(out.dtype(), "log_softmax", [&]<typename T>() {
    launch("log_softmax backward", log_softmax_gradient<T>, grid_of_rows(out), stream_of(grad_x),
           data_of<T>(grad), data_of<T>(out), out.size(0), out.size(1), data_of<T>(grad_x));
  });
}

}  // namespace millrace::cuda
