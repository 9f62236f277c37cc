#pragma once

#include <array>
#include <string>
#include <variant>
#include <vector>

namespace millrace::nn {

/// As torch.optim.SGD.
struct SgdOptions {
  double learning_rate = 0.01;
  double momentum = 0;
  double weight_decay = 0;  ///< Added to the gradient, times the weight.
  bool nesterov = false;
  bool operator==(const SgdOptions&) const = default;
};

/// Kingma and Ba, arXiv 1412.6980; as torch.optim.Adam.
struct AdamOptions {
  double learning_rate = 0.001;
  std::array<double, 2> betas = {0.9, 0.999};  ///< Of the averages of gradients and of their squares.
  double eps = 1e-8;
  double weight_decay = 0;  ///< Added to the gradient, times the weight.
  bool operator==(const AdamOptions&) const = default;
};

/// Loshchilov and Hutter, arXiv 1711.05101; as torch.optim.AdamW.
struct AdamWOptions {
  double learning_rate = 0.001;
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0.01;  ///< Each step takes away so much of the weight, times the learning rate.
  bool operator==(const AdamWOptions&) const = default;
};

/// As torch.optim.RMSprop.
struct RmsPropOptions {
  double learning_rate = 0.01;
  double alpha = 0.99;  ///< Of the average of the gradients' squares.
  double eps = 1e-8;
  double momentum = 0;
  bool centered = false;    ///< The gradients' variance in place of the mean of their squares.
  double weight_decay = 0;  ///< Added to the gradient, times the weight.
  bool operator==(const RmsPropOptions&) const = default;
};

/// Jordan et al., 2024 (kellerjordan.github.io/posts/muon): the momentum of a filter or matrix, as a matrix
/// of size(0) rows, is brought near to the nearest orthogonal one by Newton-Schulz steps.
struct MuonOptions {
  double learning_rate = 0.02;
  double momentum = 0.95;
  bool nesterov = true;
  int newton_schulz_steps = 5;
  /// Before each update the weight is scaled to the norm sqrt(size(0)), as for airbench94.
  bool normalize_weights = false;
  bool operator==(const MuonOptions&) const = default;
};

using OptimizerOptions = std::variant<SgdOptions, AdamOptions, AdamWOptions, RmsPropOptions, MuonOptions>;

/// @throws InputError naming the values that are out of range.
void check(const OptimizerOptions& options);
/// "Adam, learning rate 0.001, betas 0.9 0.999, ..."
std::string describe(const OptimizerOptions& options);
/// The buffers that the kind needs, by PyTorch's names.
std::vector<std::string> state_names(const OptimizerOptions& options);

}  // namespace millrace::nn
