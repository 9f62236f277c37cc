#pragma once

#include <cstdint>
#include <string>

#include "nn/module.h"

namespace millrace::nn {

struct BatchNorm2dOptions {
  double eps = 1e-5;
  double momentum = 0.1;                     ///< Weight of the new batch in the running statistics.
  Activation activation = Activation::none;  ///< Of the result: faster than a layer of its own behind.
  bool max_pool = false;  ///< Of 2x2 windows, behind that; the same on CPUs, where sides are even.
};
/// Normalizes each channel of [N, C, H, W] by the batch's statistics in training and by running ones
/// otherwise. Ioffe and Szegedy, arXiv 1502.03167.
class BatchNorm2d : public Module {
 public:
  explicit BatchNorm2d(std::int64_t channels, const BatchNorm2dOptions& options = {});
  /// @throws InputError in training when a channel has a single value: its variance says nothing.
  Variable forward(const Variable& x) override { return forward(x, {}); }
  /// relu(normalized + residual), the end of a residual block, in one pass; for layers with relu. (A max
  /// pooling behind it is another.)
  Variable forward(const Variable& x, const Variable& residual);
  std::string describe() const override;
  std::int64_t channels() const { return running_mean.numel(); }

  /// The mean and the unbiased variance times the samples, then the samples.
  std::int64_t statistics_size() const override { return 2 * channels() + 1; }
  void collect_statistics(Tensor sums) override;
  /// Moves the running statistics by what was collected (nothing, when no sample was).
  void apply_statistics() override;

  Variable weight, bias;             ///< [C]
  Tensor running_mean, running_var;  ///< [C]
  Tensor num_batches_tracked;        ///< i64 scalar, for PyTorch

 private:
  void add_statistics(const Tensor& mean, const Tensor& var, std::int64_t samples, std::int64_t values);

  BatchNorm2dOptions options_;
  Tensor sum_mean_, sum_var_, samples_;  // views of what collect_statistics was given
};

}  // namespace millrace::nn
