#include <algorithm>
#include <cmath>

#include "tensor/kernels/optimizer.h"

namespace millrace::cpu {
namespace {

/// Whether there is a step to take; the control's factor is in it then.
template <typename Step>
bool is_taken(Step& step) {
  const float* control = step.gradient.control;
  if (control != nullptr) {
    step.gradient.gradient_scale *= control[1];
  }
  return control == nullptr || control[0] != 0;
}

template <bool kNesterov>
void sgd(float* __restrict weight, const float* __restrict grad, float* __restrict momentum,
         std::int64_t count, const SgdStep& step) {
  const float rate = step.learning_rate, inertia = step.momentum, decay = step.gradient.weight_decay,
              scale = step.gradient.gradient_scale;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = scale * grad[i] + decay * weight[i];
    const float m = inertia * momentum[i] + g;
    momentum[i] = m;
    weight[i] -= rate * (kNesterov ? g + inertia * m : m);
  }
}

void adam(float* __restrict weight, const float* __restrict grad, float* __restrict exp_avg,
          float* __restrict exp_avg_sq, std::int64_t count, const AdamStep& step) {
  const float decay = step.gradient.weight_decay, scale = step.gradient.gradient_scale,
              learning_rate = step.learning_rate, rate1 = step.rate1, rate2 = step.rate2, eps = step.eps,
              correction = step.correction, shrink = step.shrink;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = scale * grad[i] + decay * weight[i];
    const float m = exp_avg[i] + rate1 * (g - exp_avg[i]);
    const float v = exp_avg_sq[i] + rate2 * (g * g - exp_avg_sq[i]);
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    weight[i] = shrink * weight[i] - learning_rate * (m / (correction * std::sqrt(v) + eps));
  }
}

template <bool kCentered, bool kMomentum>
void rms_prop(float* __restrict weight, const float* __restrict grad, float* __restrict square_avg,
              float* __restrict grad_avg, float* __restrict momentum, std::int64_t count,
              const RmsPropStep& step) {
  const float decay = step.gradient.weight_decay, scale = step.gradient.gradient_scale,
              learning_rate = step.learning_rate, rate = step.rate, eps = step.eps, inertia = step.momentum;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = scale * grad[i] + decay * weight[i];
    float square = square_avg[i] + rate * (g * g - square_avg[i]);
    square_avg[i] = square;
    if constexpr (kCentered) {
      const float mean = grad_avg[i] + rate * (g - grad_avg[i]);
      grad_avg[i] = mean;
      square = std::max(square - mean * mean, 0.0f);  // rounding may leave less than nothing
    }
    float u = g / (std::sqrt(square) + eps);
    if constexpr (kMomentum) {
      u += inertia * momentum[i];
      momentum[i] = u;
    }
    weight[i] -= learning_rate * u;
  }
}

}  // namespace

void sgd_step(Tensor& weight, const Tensor& grad, Tensor& momentum, const SgdStep& step) {
  SgdStep taken = step;
  if (is_taken(taken)) {
    const auto run = step.nesterov ? sgd<true> : sgd<false>;
    run(weight.data<float>(), grad.data<float>(), momentum.data<float>(), weight.numel(), taken);
  }
}

void adam_step(Tensor& weight, const Tensor& grad, Tensor& exp_avg, Tensor& exp_avg_sq,
               const AdamStep& step) {
  AdamStep taken = step;
  if (is_taken(taken)) {
    adam(weight.data<float>(), grad.data<float>(), exp_avg.data<float>(), exp_avg_sq.data<float>(),
         weight.numel(), taken);
  }
}

void rms_prop_step(Tensor& weight, const Tensor& grad, Tensor& square_avg, Tensor& grad_avg, Tensor& momentum,
                   const RmsPropStep& step) {
  RmsPropStep taken = step;
  if (is_taken(taken)) {
    const auto run = step.momentum > 0 ? (step.centered ? rms_prop<true, true> : rms_prop<false, true>)
                                       : (step.centered ? rms_prop<true, false> : rms_prop<false, false>);
    run(weight.data<float>(), grad.data<float>(), square_avg.data<float>(), grad_avg.data<float>(),
        momentum.data<float>(), weight.numel(), taken);
  }
}

}  // namespace millrace::cpu
