#include "tensor/kernels.h"

namespace millrace::cpu {
namespace {

template <bool kFirst, bool kNesterov>
void update(float* __restrict weight, const float* __restrict grad, float* __restrict momentum,
            std::int64_t count, const SgdStep& step) {
  const float rate = step.learning_rate, inertia = step.momentum, decay = step.weight_decay,
              scale = step.gradient_scale;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = scale * grad[i] + decay * weight[i];
    const float m = kFirst ? g : inertia * momentum[i] + g;
    momentum[i] = m;
    weight[i] -= rate * (kNesterov ? g + inertia * m : m);
  }
}

}  // namespace

void sgd_step(Tensor& weight, const Tensor& grad, Tensor& momentum, const SgdStep& step) {
  const auto run = step.first ? (step.nesterov ? update<true, true> : update<true, false>)
                              : (step.nesterov ? update<false, true> : update<false, false>);
  run(weight.data<float>(), grad.data<float>(), momentum.data<float>(), weight.numel(), step);
}

}  // namespace millrace::cpu
