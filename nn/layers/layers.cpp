#include "nn/layers/layers.h"

#include <limits>

#include "nn/init.h"
#include "nn/step_context.h"

namespace millrace::nn {

namespace {

std::string pair(Size2 size) { return fmt::format("({}, {})", size.height, size.width); }

std::string describe_pool(const Module& module, const Pool2dOptions& options) {
  const Size2 stride = options.stride == Size2(0) ? options.kernel : options.stride;
  std::string text =
      fmt::format("{}(kernel_size={}, stride={}", module.kind(), pair(options.kernel), pair(stride));
  if (options.padding != Size2(0)) {
    text += fmt::format(", padding={}", pair(options.padding));
  }
  return text + ")";
}

std::string describe_pad(const Module& module, const Pad2d& pad) {
  return fmt::format("{}(({}, {}, {}, {}))", module.kind(), pad.left, pad.right, pad.top, pad.bottom);
}

}  // namespace

Conv2d::Conv2d(std::int64_t in, std::int64_t out, const Conv2dOptions& options)
    : params_{options.stride, options.padding, options.dilation, options.groups, options.max_pool} {
  if (in < 1 || out < 1 || options.kernel.height < 1 || options.kernel.width < 1) {
    throw InputError("Conv2d: got {} to {} channels with kernel {}, expected positive numbers", in, out,
                     pair(options.kernel));
  }
  if (options.groups < 1 || in % options.groups != 0 || out % options.groups != 0) {
    throw InputError("Conv2d: got groups = {}, which does not divide {} and {} channels", options.groups, in,
                     out);
  }
  Tensor value = empty({out, in / options.groups, options.kernel.height, options.kernel.width});
  const std::int64_t fan_in = fans_of(value.shape()).in;
  init_default(value, fan_in);
  weight = add_parameter("weight", value);
  if (options.bias) {
    Tensor offsets = empty({out});
    init_default(offsets, fan_in);
    bias = add_parameter("bias", offsets);
  }
}

Variable Conv2d::forward(const Variable& x) { return conv2d(x, weight, bias, params_); }

std::string Conv2d::describe() const {
  const Shape& shape = weight.shape();
  std::string text = fmt::format("{}({}, {}, kernel_size={}, stride={}", kind(), shape[1] * params_.groups,
                                 shape[0], pair({shape[2], shape[3]}), pair(params_.stride));
  if (params_.padding != Size2(0)) {
    text += fmt::format(", padding={}", pair(params_.padding));
  }
  if (params_.dilation != Size2(1)) {
    text += fmt::format(", dilation={}", pair(params_.dilation));
  }
  if (params_.groups != 1) {
    text += fmt::format(", groups={}", params_.groups);
  }
  if (!bias.defined()) {
    text += ", bias=False";
  }
  if (params_.max_pool) {
    text += ", max_pool=True";
  }
  return text + ")";
}

Linear::Linear(std::int64_t in, std::int64_t out, const LinearOptions& options) {
  if (in < 1 || out < 1) {
    throw InputError("Linear: got {} to {} features, expected positive numbers", in, out);
  }
  Tensor value = empty({out, in});
  init_default(value, in);
  weight = add_parameter("weight", value);
  if (options.bias) {
    Tensor offsets = empty({out});
    init_default(offsets, in);
    bias = add_parameter("bias", offsets);
  }
}

std::string Linear::describe() const {
  return fmt::format("{} ({} -> {}{})", kind(), weight.size(1), weight.size(0),
                     bias.defined() ? "" : ", bias=False");
}

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
  if (!is_training()) {
    BatchNormOptions options{.eps = options_.eps,
                             .training = false,
                             .activation = options_.activation,
                             .max_pool = options_.max_pool,
                             .mean = running_mean,
                             .var = running_var};
    return batch_norm(x, weight, bias, options, residual);
  }
  const std::int64_t values = x.dim() >= 2 && x.size(1) > 0 ? x.data().numel() / x.size(1) : 0;
  if (values == 1) {
    throw InputError(
        "BatchNorm2d: input {} has one value a channel, training needs at least two; use larger shards",
        x.shape());
  }
  BatchNormOptions options{.eps = options_.eps,
                           .training = true,
                           .activation = options_.activation,
                           .max_pool = options_.max_pool};
  Variable out = batch_norm(x, weight, bias, options, residual);
  if (values > 0) {  // an empty batch says nothing
    add_statistics(options.mean, options.var, x.size(0), values);
  }
  return out;
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

std::string MaxPool2d::describe() const { return describe_pool(*this, options_); }
std::string AvgPool2d::describe() const { return describe_pool(*this, options_); }
std::string AdaptiveMaxPool2d::describe() const { return fmt::format("{}({})", kind(), pair(output_)); }
std::string AdaptiveAvgPool2d::describe() const { return fmt::format("{}({})", kind(), pair(output_)); }
std::string Softmax::describe() const { return fmt::format("{}(dim={})", kind(), dim_); }
std::string LogSoftmax::describe() const { return fmt::format("{}(dim={})", kind(), dim_); }
std::string ZeroPad2d::describe() const { return describe_pad(*this, pad_); }
std::string ReflectionPad2d::describe() const { return describe_pad(*this, pad_); }

Dropout::Dropout(double p) : p_(p) {
  if (!(p >= 0 && p < 1)) {
    throw InputError("Dropout: got p = {}, expected a probability in [0, 1)", p);
  }
}

Variable Dropout::forward(const Variable& x) {
  if (!is_training() || p_ == 0) {
    return x;
  }
  StepContext& context = step_context();
  const std::uint64_t key = mix(mix(context.seed, context.step), context.layer++);
  const std::int64_t elements = x.size(0) > 0 ? x.data().numel() / x.size(0) : 0;
  return dropout(x, p_, key, static_cast<std::uint64_t>(context.first_sample * elements));
}

std::string Dropout::describe() const { return fmt::format("{}(p={})", kind(), p_); }

Variable Sequential::forward(const Variable& x) {
  Variable y = x;
  for (const auto& module : owned_) {
    y = module->forward(y);
  }
  return y;
}

}  // namespace millrace::nn
