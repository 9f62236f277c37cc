#include "tensor/cuda/channels.cuh"
#include "tensor/training_kernels.h"

namespace millrace::cuda {
namespace {

/// The products are fused by hand, so that a weight gets the same bits from either form.
template <bool kFirst, bool kNesterov>
__device__ void update(float& weight, float grad, float& momentum, const SgdStep& step) {
  const float g = fmaf(step.gradient_scale, grad, step.weight_decay * weight);
  momentum = kFirst ? g : fmaf(step.momentum, momentum, g);
  weight = fmaf(-step.learning_rate, kNesterov ? fmaf(step.momentum, momentum, g) : momentum, weight);
}

template <bool kFirst, bool kNesterov, int N>
__global__ void sgd(float* __restrict__ weight, const float* __restrict__ grad, float* __restrict__ momentum,
                    std::int64_t packs, SgdStep step, const float* __restrict__ control) {
  if (control != nullptr) {
    if (control[0] == 0) {
      return;
    }
    step.gradient_scale *= control[1];
  }
  for (const std::int64_t i : grid_range(packs)) {
    auto w = load_pack<float, N>(weight + i * N);
    auto m = load_pack<float, N>(momentum + i * N);
    const auto g = load_pack<float, N>(grad + i * N);
    for (int k = 0; k < N; ++k) {
      update<kFirst, kNesterov>(w.at[k], g.at[k], m.at[k], step);
    }
    store_pack(weight + i * N, w);
    store_pack(momentum + i * N, m);
  }
}

template <bool kFirst, bool kNesterov>
void run(Tensor& weight, const Tensor& grad, Tensor& momentum, const SgdStep& step, const float* control) {
  const cudaStream_t stream = stream_of(weight);
  float *w = weight.data<float>(), *m = momentum.data<float>();
  const float* g = grad.data<float>();
  std::int64_t done = 0;
  if (is_aligned(w) && is_aligned(g) && is_aligned(m)) {
    const std::int64_t packs = weight.numel() / 4;
    launch("sgd_step", sgd<kFirst, kNesterov, 4>, grid_for(packs), stream, w, g, m, packs, step, control);
    done = packs * 4;
  }
  const std::int64_t rest = weight.numel() - done;
  launch("sgd_step", sgd<kFirst, kNesterov, 1>, grid_for(rest), stream, w + done, g + done, m + done, rest,
         step, control);
}

void run_form(Tensor& weight, const Tensor& grad, Tensor& momentum, const SgdStep& step,
              const float* control) {
  const auto form = step.first ? (step.nesterov ? run<true, true> : run<true, false>)
                               : (step.nesterov ? run<false, true> : run<false, false>);
  form(weight, grad, momentum, step, control);
}

}  // namespace

void sgd_step(Tensor& weight, const Tensor& grad, Tensor& momentum, const SgdStep& step) {
  run_form(weight, grad, momentum, step, nullptr);
}

void sgd_step_if(const Tensor& control, Tensor& weight, const Tensor& grad, Tensor& momentum,
                 const SgdStep& step) {
  run_form(weight, grad, momentum, step, control.data<float>());
}

}  // namespace millrace::cuda
