#pragma once

#include <array>

namespace millrace::nn {

struct FlatPart;
struct OptimizerFacts;  // nn/optimizers/kind.h says what a kind is
template <typename Options>
struct OptimizerOf;

/// Kingma and Ba, arXiv 1412.6980; as torch.optim.Adam.
struct AdamOptions {
  double learning_rate = 0.001;
  std::array<double, 2> betas = {0.9, 0.999};  ///< Of the averages of gradients and of their squares.
  double eps = 1e-8;
  double weight_decay = 0;  ///< Added to the gradient, times the weight.
  bool operator==(const AdamOptions&) const = default;
};
using Adam = OptimizerOf<AdamOptions>;

/// Loshchilov and Hutter, arXiv 1711.05101; as torch.optim.AdamW.
struct AdamWOptions {
  double learning_rate = 0.001;
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0.01;  ///< Each step takes away so much of the weight, times the learning rate.
  bool operator==(const AdamWOptions&) const = default;
};
using AdamW = OptimizerOf<AdamWOptions>;

OptimizerFacts facts_of(const AdamOptions& options);
OptimizerFacts facts_of(const AdamWOptions& options);
void update(const AdamOptions& options, const FlatPart& part);
void update(const AdamWOptions& options, const FlatPart& part);

}  // namespace millrace::nn
