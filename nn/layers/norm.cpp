#include "nn/layers/norm.h"

#include <limits>

namespace millrace::nn {

BatchNorm2d::BatchNorm2d(std::int64_t channels, const BatchNorm2dOptions& options)
    : weight(add_parameter("weight", ones({channels}))),
      bias(add_parameter("bias", zeros({channels}))),
      running_mean(zeros({channels})),
      running_var(ones({channels})),
      num_batches_tracked(zeros({}, {.dtype = DType::i64})),
      options_(options) {
  add_buffer("running_mean", running_mean);
  add_buffer("running_var", running_var);
  add_buffer("num_batches_tracked", num_batches_tracked);
}

Variable BatchNorm2d::forward(const Variable& x, const Variable& residual) {
  BatchNormOptions options{.eps = options_.eps,
                           .training = is_training(),
                           .activation = options_.activation,
                           .max_pool = options_.max_pool};
  if (!options.training) {
    options.mean = running_mean;
    options.var = running_var;
    return batch_norm(x, weight, bias, options, residual).out;
  }
  const std::int64_t values = x.dim() >= 2 && x.size(1) > 0 ? x.data().numel() / x.size(1) : 0;
  if (values == 1) {
    throw InputError(
        "BatchNorm2d: input {} has one value a channel, training needs at least two; use larger shards",
        x.shape());
  }
  const BatchNormResult result = batch_norm(x, weight, bias, options, residual);
  if (values > 0) {  // an empty batch says nothing
    add_statistics(result.mean, result.var, x.size(0), values);
  }
  return result.out;
}

void BatchNorm2d::add_statistics(const Tensor& mean, const Tensor& var, std::int64_t samples,
                                 std::int64_t values) {
  const double unbiased = static_cast<double>(values) / static_cast<double>(values - 1);
  if (sum_mean_.defined()) {
    const auto weight_of_sum = static_cast<double>(samples);
    sum_mean_.add_(mean, weight_of_sum);
    sum_var_.add_(var, weight_of_sum * unbiased);
    samples_.add_(weight_of_sum);
    return;
  }
  running_mean.mul_(1 - options_.momentum).add_(mean, options_.momentum);
  running_var.mul_(1 - options_.momentum).add_(var, options_.momentum * unbiased);
  num_batches_tracked.add_(1);
}

void BatchNorm2d::collect_statistics(Tensor sums) {
  if (!sums.defined()) {
    sum_mean_ = sum_var_ = samples_ = Tensor();
    return;
  }
  sum_mean_ = sums.narrow(0, 0, channels());
  sum_var_ = sums.narrow(0, channels(), channels());
  samples_ = sums.narrow(0, 2 * channels(), 1);
}

void BatchNorm2d::apply_statistics() {
  // All on the device: no value is read back, so a GPU need not be waited for.
  const Tensor divisor = clamp(samples_, 1, std::numeric_limits<float>::max());
  const Tensor rate = clamp(samples_, 0, 1) * options_.momentum;
  running_mean.add_((sum_mean_ / divisor - running_mean) * rate);
  running_var.add_((sum_var_ / divisor - running_var) * rate);
  num_batches_tracked.add_(clamp(samples_, 0, 1).view({}).to(DType::i64));
}

std::string BatchNorm2d::describe() const {
  const char* activation = options_.activation == Activation::none   ? ""
                           : options_.activation == Activation::relu ? ", activation=relu"
                                                                     : ", activation=gelu";
  return fmt::format("{}({}, eps={}, momentum={}{}{})", kind(), channels(), options_.eps, options_.momentum,
                     activation, options_.max_pool ? ", max_pool=True" : "");
}

}  // namespace millrace::nn
