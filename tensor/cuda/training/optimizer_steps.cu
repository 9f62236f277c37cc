#include "tensor/cuda/channels.cuh"
#include "tensor/kernels/optimizer.h"

namespace millrace::cuda {
namespace {

// The products are fused by hand, or kept apart (`__fmul_rn`), so that a weight gets the same bits from packs
// and from what is left over.

__device__ float gradient(const GradientStep& step, float grad, float weight) {
  return fmaf(step.gradient_scale, grad, step.weight_decay * weight);
}

/// A running average, `rate` of the way nearer to the value.
__device__ float moved(float average, float value, float rate) {
  return fmaf(rate, value - average, average);
}

template <bool kNesterov>
struct Sgd {
  SgdStep step;
  __device__ void operator()(float& weight, float grad, float* state) const {
    const float g = gradient(step.gradient, grad, weight), m = fmaf(step.momentum, state[0], g);
    weight = fmaf(-step.learning_rate, kNesterov ? fmaf(step.momentum, m, g) : m, weight);
    state[0] = m;
  }
};

struct Adam {
  AdamStep step;
  __device__ void operator()(float& weight, float grad, float* state) const {
    const float g = gradient(step.gradient, grad, weight);
    state[0] = moved(state[0], g, step.rate1);
    state[1] = moved(state[1], __fmul_rn(g, g), step.rate2);
    const float root = fmaf(step.correction, sqrtf(state[1]), step.eps);
    weight = fmaf(-step.learning_rate, state[0] / root, step.shrink * weight);
  }
};

/// State: the squares' average, then the gradients' where centered, then the momentum where there is one.
template <bool kCentered, bool kMomentum>
struct RmsProp {
  RmsPropStep step;
  __device__ void operator()(float& weight, float grad, float* state) const {
    const float g = gradient(step.gradient, grad, weight);
    float square = state[0] = moved(state[0], __fmul_rn(g, g), step.rate);
    if constexpr (kCentered) {
      state[1] = moved(state[1], g, step.rate);
      square = fmaxf(fmaf(-state[1], state[1], square), 0);
    }
    float u = g / (sqrtf(square) + step.eps);
    if constexpr (kMomentum) {
      float& momentum = state[kCentered ? 2 : 1];
      u = momentum = fmaf(step.momentum, momentum, u);
    }
    weight = fmaf(-step.learning_rate, u, weight);
  }
};

template <int K>
struct States {
  float* at[K];
};

template <int N, int K, typename Update>
__global__ void step_packs(Update update, std::int64_t packs, float* weight, const float* grad,
                           States<K> states) {
  GradientStep& given = update.step.gradient;
  if (given.control != nullptr) {
    if (given.control[0] == 0) {
      return;
    }
    given.gradient_scale *= given.control[1];
  }
  for (const std::int64_t i : grid_range(packs)) {
    auto w = load_pack<float, N>(weight + i * N);
    const auto g = load_pack<float, N>(grad + i * N);
    Pack<float, N> s[K];
    for (int k = 0; k < K; ++k) {
      s[k] = load_pack<float, N>(states.at[k] + i * N);
    }
    for (int n = 0; n < N; ++n) {
      float state[K];
      for (int k = 0; k < K; ++k) {
        state[k] = s[k].at[n];
      }
      update(w.at[n], g.at[n], state);
      for (int k = 0; k < K; ++k) {
        s[k].at[n] = state[k];
      }
    }
    store_pack(weight + i * N, w);
    for (int k = 0; k < K; ++k) {
      store_pack(states.at[k] + i * N, s[k]);
    }
  }
}

template <typename Update, typename... State>
void run(const char* name, const Update& update, Tensor& weight, const Tensor& grad, State&... state) {
  constexpr int kStates = sizeof...(State);
  const cudaStream_t stream = stream_of(weight);
  float* w = weight.data<float>();
  const float* g = grad.data<float>();
  States<kStates> states{{state.template data<float>()...}};
  std::int64_t rest = weight.numel();
  if (is_aligned(w) && is_aligned(g) && (is_aligned(state.raw()) && ...)) {
    const std::int64_t packs = rest / 4;
    launch(name, step_packs<4, kStates, Update>, grid_for(packs), stream, update, packs, w, g, states);
    w += packs * 4;
    g += packs * 4;
    for (float*& buffer : states.at) {
      buffer += packs * 4;
    }
    rest -= packs * 4;
  }
  launch(name, step_packs<1, kStates, Update>, grid_for(rest), stream, update, rest, w, g, states);
}

}  // namespace

const KernelRow kSgdStep("sgd_step", cuda::sgd_step,
                         {takes::vector("weight"), takes::vector("grad"), takes::vector("momentum")});
void sgd_step(Tensor& weight, const Tensor& grad, Tensor& momentum, const SgdStep& step) {
  kSgdStep.check({&weight, &grad, &momentum});
  if (step.nesterov) {
    run("sgd_step", Sgd<true>{step}, weight, grad, momentum);
  } else {
    run("sgd_step", Sgd<false>{step}, weight, grad, momentum);
  }
}

const KernelRow kAdamStep("adam_step", cuda::adam_step,
                          {takes::vector("weight"), takes::vector("grad"), takes::vector("exp_avg"),
                           takes::vector("exp_avg_sq")});
void adam_step(Tensor& weight, const Tensor& grad, Tensor& exp_avg, Tensor& exp_avg_sq,
               const AdamStep& step) {
  kAdamStep.check({&weight, &grad, &exp_avg, &exp_avg_sq});
  run("adam_step", Adam{step}, weight, grad, exp_avg, exp_avg_sq);
}

const KernelRow kRmsPropStep("rms_prop_step", cuda::rms_prop_step,
                             {takes::vector("weight"), takes::vector("grad"), takes::vector("square_avg"),
                              takes::maybe_vector("grad_avg"), takes::maybe_vector("momentum")});
void rms_prop_step(Tensor& weight, const Tensor& grad, Tensor& square_avg, Tensor& grad_avg, Tensor& momentum,
                   const RmsPropStep& step) {
  kRmsPropStep.check({&weight, &grad, &square_avg, &grad_avg, &momentum});
  const char* name = "rms_prop_step";
  if (step.centered && step.momentum > 0) {
    run(name, RmsProp<true, true>{step}, weight, grad, square_avg, grad_avg, momentum);
  } else if (step.centered) {
    run(name, RmsProp<true, false>{step}, weight, grad, square_avg, grad_avg);
  } else if (step.momentum > 0) {
    run(name, RmsProp<false, true>{step}, weight, grad, square_avg, momentum);
  } else {
    run(name, RmsProp<false, false>{step}, weight, grad, square_avg);
  }
}

}  // namespace millrace::cuda
