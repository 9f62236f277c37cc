#include "nn/init.h"

#include <algorithm>
#include <cmath>

#include "nn/module.h"
#include "nn/step_context.h"

namespace millrace::nn {

Generator& default_generator() {
  static thread_local Generator generator;
  return generator;
}

StepContext& step_context() {
  static thread_local StepContext context;
  return context;
}

void manual_seed(std::uint64_t seed) {
  default_generator() = Generator(seed);
  step_context() = {.seed = seed};
}

Fans fans_of(const Shape& weight) {
  if (weight.size() < 2) {
    throw InputError("fans_of: got a weight of shape {}, expected [out, in, ...]", weight);
  }
  std::int64_t places = 1;
  for (int i = 2; i < weight.size(); ++i) {
    places *= weight[i];
  }
  return {.in = weight[1] * places, .out = weight[0] * places};
}

void init_uniform(Tensor& tensor, double low, double high) {
  tensor.copy_(rand(tensor.shape(), default_generator()).mul_(high - low).add_(low));
}

void init_normal(Tensor& tensor, double mean, double deviation) {
  tensor.copy_(randn(tensor.shape(), default_generator()).mul_(deviation).add_(mean));
}

void init_default(Tensor& tensor, std::int64_t fan_in) {
  const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
  init_uniform(tensor, -bound, bound);
}

void init_kaiming_normal(Tensor& weight) {
  init_normal(weight, 0, std::sqrt(2 / static_cast<double>(fans_of(weight.shape()).out)));
}

void init_dirac(Tensor& weight) {
  if (weight.dim() != 4) {
    throw InputError("init_dirac: got a weight of shape {}, expected [out, in, height, width]",
                     weight.shape());
  }
  for (std::int64_t i = 0; i < std::min(weight.size(0), weight.size(1)); ++i) {
    Tensor filter = weight.select(0, i);
    filter.zero_();
    filter.set({i, weight.size(2) / 2, weight.size(3) / 2}, 1);
  }
}

}  // namespace millrace::nn
