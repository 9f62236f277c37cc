#include "tensor/kernels/loss_scale.h"

#include <algorithm>
#include <cmath>

namespace millrace::cpu {

void update_loss_scale(Tensor& gradients, Tensor& state) {
  auto* values = state.data<float>();
  auto* gradient = gradients.data<float>();
  const auto is_finite = [](float x) { return std::isfinite(x); };
  const bool good = std::all_of(gradient, gradient + gradients.numel(), is_finite);
  values[LossScale::apply] = good ? 1 : 0;
  values[LossScale::inverse] = 1 / values[LossScale::scale];
  if (!good) {
    values[LossScale::scale] = std::max(values[LossScale::scale] / 2, 1.0f);
    values[LossScale::good_steps] = 0;
    gradients.zero_();
  } else if (++values[LossScale::good_steps] == LossScale::kGrowth) {
    values[LossScale::scale] = std::min(values[LossScale::scale] * 2, LossScale::kLargest);
    values[LossScale::good_steps] = 0;
  }
}

}  // namespace millrace::cpu
