#include <cassert>
#include <cmath>

#include "tensor/cpu/visit_float.h"
#include "tensor/kernels/rows.h"

namespace millrace::cpu {
namespace {

std::int64_t checked_label(const std::int64_t* labels, std::int64_t row, std::int64_t classes) {
  const std::int64_t label = labels[row];
  if (label < 0 || label >= classes) {
    throw InputError("cross_entropy: row {} has label {}, expected 0 to {}", row, label, classes - 1);
  }
  return label;
}

/// The loss against the label's share 1 - s and s / classes on every class: -(1 - s) log p[label] - s
/// mean(log p).
template <typename T>
float loss_of(const T* log_probabilities, std::int64_t classes, std::int64_t label, double smoothing) {
  const double nll = -static_cast<double>(log_probabilities[label]);
  if (smoothing == 0) {
    return static_cast<float>(nll);
  }
  double sum = 0;
  for (std::int64_t c = 0; c < classes; ++c) {
    sum += log_probabilities[c];
  }
  return static_cast<float>((1 - smoothing) * nll - smoothing * sum / static_cast<double>(classes));
}

}  // namespace

void cross_entropy_forward(const Tensor& logits, const Tensor& labels, double smoothing,
                           Tensor& log_probabilities, Tensor& losses) {
  assert(labels.is_contiguous() && losses.dtype() == DType::f32);
  const std::int64_t rows = logits.size(0), classes = logits.size(1);
  const std::int64_t* label = labels.data<std::int64_t>();
  float* loss = losses.data<float>();
  for (std::int64_t row = 0; row < rows; ++row) {
    checked_label(label, row, classes);
  }
  log_softmax(logits, log_probabilities);
  visit_float(log_probabilities.dtype(), "cross_entropy", [&]<typename T>() {
    const T* log_p = log_probabilities.data<T>();
    for (std::int64_t row = 0; row < rows; ++row, log_p += classes) {
      loss[row] = loss_of(log_p, classes, label[row], smoothing);
    }
  });
}

void cross_entropy_backward(const Tensor& grad, const Tensor& log_probabilities, const Tensor& labels,
                            double smoothing, Tensor& grad_logits) {
  const std::int64_t rows = log_probabilities.size(0), classes = log_probabilities.size(1);
  if (rows == 0) {
    return;
  }
  const std::int64_t* label = labels.data<std::int64_t>();
  const float* row_grad = grad.data<float>();
  const std::int64_t stride = grad.size(0) == 1 ? 0 : grad.strides()[0];
  const auto everywhere = static_cast<float>(smoothing / static_cast<double>(classes));
  const auto at_label = static_cast<float>(1 - smoothing);
  visit_float(log_probabilities.dtype(), "cross_entropy", [&]<typename P>() {
    visit_float(grad_logits.dtype(), "cross_entropy", [&]<typename T>() {
      const P* log_p = log_probabilities.data<P>();
      T* to = grad_logits.data<T>();
      for (std::int64_t row = 0; row < rows; ++row, log_p += classes, to += classes) {
        const float g = row_grad[row * stride];
        for (std::int64_t c = 0; c < classes; ++c) {
          const float target = everywhere + (c == label[row] ? at_label : 0.0f);
          to[c] = T(g * (std::exp(static_cast<float>(log_p[c])) - target));
        }
      }
    });
  });
}

}  // namespace millrace::cpu
