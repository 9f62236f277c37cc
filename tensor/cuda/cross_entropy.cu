#include <limits>

#include "tensor/cuda/check_index.cuh"
#include "tensor/cuda/rows.cuh"
#include "tensor/kernels/rows.h"

namespace millrace::cuda {
namespace {

/// The loss is that of the rounded log-probabilities, as on the CPU. A label out of range gives not-a-number.
template <typename T, typename P>
__global__ void forward(const T* __restrict__ logits, const std::int64_t* __restrict__ labels,
                        std::int64_t rows, std::int64_t classes, double smoothing,
                        P* __restrict__ log_probabilities, float* __restrict__ losses, Fault* fault) {
  for_each_row(rows, [&](std::int64_t row) {
    const T* const in = logits + row * classes;
    const LogSoftmax of = log_softmax_of(in, classes);
    const float sum = sum_of(classes, [&](std::int64_t c) {
      const P rounded = from_float<P>(of(to_float(in[c])));
      log_probabilities[row * classes + c] = rounded;
      return to_float(rounded);
    });
    if (threadIdx.x != 0) {
      return;
    }
    const std::int64_t label = labels[row];
    if (!check_index(fault, Indexing::cross_entropy, row, label, classes)) {
      losses[row] = std::numeric_limits<float>::quiet_NaN();
      return;
    }
    const double nll = -static_cast<double>(to_float(from_float<P>(of(to_float(in[label])))));
    losses[row] = static_cast<float>(
        smoothing == 0 ? nll : (1 - smoothing) * nll - smoothing * sum / static_cast<double>(classes));
  });
}

template <typename P, typename T>
__global__ void backward(const float* __restrict__ grad, std::int64_t grad_stride,
                         const P* __restrict__ log_probabilities, const std::int64_t* __restrict__ labels,
                         std::int64_t rows, std::int64_t classes, float everywhere, float at_label,
                         T* __restrict__ grad_logits) {
  for_each_row(rows, [&](std::int64_t row) {
    const float g = grad[row * grad_stride];
    const std::int64_t label = labels[row];
    for_each_column(classes, [&](std::int64_t c) {
      const float target = everywhere + (c == label ? at_label : 0.0f);
      const float probability = expf(to_float(log_probabilities[row * classes + c]));
      grad_logits[row * classes + c] = from_float<T>(g * (probability - target));
    });
  });
}

}  // namespace

const KernelRow kCrossEntropyForward("cross_entropy_forward", cuda::cross_entropy_forward,
                                     {takes::rows("logits"),
                                      {"labels", takes::kI64, Order::row_major},
                                      takes::rows("log_probabilities"),
                                      takes::vector("losses")});
void cross_entropy_forward(const Tensor& logits, const Tensor& labels, double smoothing,
                           Tensor& log_probabilities, Tensor& losses) {
  kCrossEntropyForward.check({&logits, &labels, &log_probabilities, &losses});
  const std::int64_t rows = logits.size(0), classes = logits.size(1);
  if (rows > 0 && classes == 0) {
    throw InputError("cross_entropy: got logits {}, expected one class or more", logits.shape());
  }
  visit_activations(logits.dtype(), "cross_entropy", [&]<typename T>() {
    visit_activations(log_probabilities.dtype(), "cross_entropy", [&]<typename P>() {
      launch("cross_entropy", forward<T, P>, grid_of_rows(logits), stream_of(losses), data_of<T>(logits),
             labels.data<std::int64_t>(), rows, classes, smoothing, data_of<P>(log_probabilities),
             losses.data<float>(), fault_of(logits.device().index));
    });
  });
}

const KernelRow kCrossEntropyBackward("cross_entropy_backward", cuda::cross_entropy_backward,
                                      {{"grad", takes::kF32, Order::any},
                                       takes::rows("log_probabilities"),
                                       {"labels", takes::kI64, Order::row_major},
                                       takes::rows("grad_logits")});
void cross_entropy_backward(const Tensor& grad, const Tensor& log_probabilities, const Tensor& labels,
                            double smoothing, Tensor& grad_logits) {
  kCrossEntropyBackward.check({&grad, &log_probabilities, &labels, &grad_logits});
  const std::int64_t rows = log_probabilities.size(0), classes = log_probabilities.size(1);
  if (rows == 0) {
    return;
  }
  const std::int64_t stride = grad.size(0) == 1 ? 0 : grad.strides()[0];
  visit_activations(log_probabilities.dtype(), "cross_entropy", [&]<typename P>() {
    visit_activations(grad_logits.dtype(), "cross_entropy", [&]<typename T>() {
      launch("cross_entropy backward", backward<P, T>, grid_of_rows(log_probabilities),
             stream_of(grad_logits), grad.data<float>(), stride, data_of<P>(log_probabilities),
             labels.data<std::int64_t>(), rows, classes,
             static_cast<float>(smoothing / static_cast<double>(classes)), static_cast<float>(1 - smoothing),
             data_of<T>(grad_logits));
    });
  });
}

}  // namespace millrace::cuda
