#include "tensor/cuda/launch.cuh"
#include "tensor/kernels/loss_scale.h"

namespace millrace::cuda {
namespace {

/// Every block that finds one writes the same.
__global__ void find_not_finite(const float* __restrict__ gradients, std::int64_t count,
                                float* __restrict__ found) {
  bool bad = false;
  for (const std::int64_t i : grid_range(count)) {
    bad |= !isfinite(gradients[i]);
  }
  if (bad) {
    *found = 1;
  }
}

__global__ void decide(const float* __restrict__ found, float* __restrict__ state) {
  const bool good = *found == 0;
  state[LossScale::apply] = good ? 1 : 0;
  state[LossScale::inverse] = 1 / state[LossScale::scale];
  if (!good) {
    state[LossScale::scale] = fmaxf(state[LossScale::scale] / 2, 1);
    state[LossScale::good_steps] = 0;
  } else if (++state[LossScale::good_steps] == LossScale::kGrowth) {
    state[LossScale::scale] = fminf(state[LossScale::scale] * 2, LossScale::kLargest);
    state[LossScale::good_steps] = 0;
  }
}

__global__ void zero_unless_applied(const float* __restrict__ state, float* __restrict__ gradients,
                                    std::int64_t count) {
  if (state[LossScale::apply] != 0) {
    return;
  }
  for (const std::int64_t i : grid_range(count)) {
    gradients[i] = 0;
  }
}

}  // namespace

const KernelRow kUpdateLossScale("update_loss_scale", cuda::update_loss_scale,
                                 {takes::vector("gradients"), takes::vector("state")});
void update_loss_scale(Tensor& gradients, Tensor& state) {
  kUpdateLossScale.check({&gradients, &state});
  const Tensor found = zeros({}, {.device = gradients.device()});
  const cudaStream_t stream = stream_of(gradients);
  const std::int64_t count = gradients.numel();
  const Grid grid = grid_for(count);
  auto *values = gradients.data<float>(), *control = state.data<float>();
  launch("update_loss_scale", find_not_finite, grid, stream, values, count, found.data<float>());
  launch("update_loss_scale", decide, Grid{.threads = 1}, stream, found.data<float>(), control);
  launch("update_loss_scale", zero_unless_applied, grid, stream, control, values, count);
}

}  // namespace millrace::cuda
