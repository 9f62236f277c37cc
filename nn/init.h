#pragma once

#include "tensor/ops/random.h"

/// Random initial weights, drawn from `default_generator()`.
namespace millrace::nn {

/// Inputs (or outputs) that one value of a weight [out, in, ...] connects to.
struct Fans {
  std::int64_t in, out;
};
Fans fans_of(const Shape& weight);

void init_uniform(Tensor& tensor, double low, double high);
void init_normal(Tensor& tensor, double mean, double deviation);
/// PyTorch's default for weights and biases of a layer with `fan_in` inputs: uniform within 1 / sqrt(fan_in).
void init_default(Tensor& tensor, std::int64_t fan_in);
/// Normal with variance 2 / fan_out, which keeps the gradient's size through ReLU. He et al., arXiv
/// 1502.01852.
void init_kaiming_normal(Tensor& weight);
/// The first `in` filters of weight [out, in, height, width] pass their channel on unchanged: 1 in the middle
/// of filter i's channel i, else 0. The other filters stay as they are. Zagoruyko and Komodakis, arXiv
/// 1706.00388; in part, as here: arXiv 2404.00498.
void init_dirac(Tensor& weight);

}  // namespace millrace::nn
