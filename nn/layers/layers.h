#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nn/module.h"

/// Layers: modules around the operations of autograd/ops.h. Weights start as PyTorch's do.
namespace millrace::nn {

struct Conv2dOptions {
  Size2 kernel;
  Size2 stride = 1;
  Size2 padding = 0;
  Size2 dilation = 1;
  std::int64_t groups = 1;
  bool bias = true;
  bool max_pool = false;  ///< Of 2x2 windows behind, in the same pass where that is faster.
};
/// [N, in, H, W] to [N, out, H', W'].
class Conv2d : public Module {
 public:
  Conv2d(std::int64_t in, std::int64_t out, const Conv2dOptions& options);
  Variable forward(const Variable& x) override;
  std::string describe() const override;

  Variable weight;  ///< [out, in / groups, height, width]
  Variable bias;    ///< [out], or undefined

 private:
  Conv2dParams params_;
};

struct LinearOptions {
  bool bias = true;
};
/// [n, in] to [n, out].
class Linear : public Module {
 public:
  Linear(std::int64_t in, std::int64_t out, const LinearOptions& options = {});
  Variable forward(const Variable& x) override { return linear(x, weight, bias); }
  std::string describe() const override;

  Variable weight;  ///< [out, in]
  Variable bias;    ///< [out], or undefined
};

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

class MaxPool2d : public Module {
 public:
  explicit MaxPool2d(const Pool2dOptions& options) : options_(options) {}
  Variable forward(const Variable& x) override { return max_pool2d(x, options_); }
  std::string describe() const override;

 private:
  Pool2dOptions options_;
};

class AvgPool2d : public Module {
 public:
  explicit AvgPool2d(const Pool2dOptions& options) : options_(options) {}
  Variable forward(const Variable& x) override { return avg_pool2d(x, options_); }
  std::string describe() const override;

 private:
  Pool2dOptions options_;
};

class AdaptiveMaxPool2d : public Module {
 public:
  explicit AdaptiveMaxPool2d(Size2 output) : output_(output) {}
  Variable forward(const Variable& x) override { return adaptive_max_pool2d(x, output_); }
  std::string describe() const override;

 private:
  Size2 output_;
};

class AdaptiveAvgPool2d : public Module {
 public:
  explicit AdaptiveAvgPool2d(Size2 output) : output_(output) {}
  Variable forward(const Variable& x) override { return adaptive_avg_pool2d(x, output_); }
  std::string describe() const override;

 private:
  Size2 output_;
};

struct ReLU : Module {
  Variable forward(const Variable& x) override { return relu(x); }
};
struct GELU : Module {
  Variable forward(const Variable& x) override { return gelu(x); }
};
struct Sigmoid : Module {
  Variable forward(const Variable& x) override { return sigmoid(x); }
};
struct Tanh : Module {
  Variable forward(const Variable& x) override { return tanh(x); }
};

class Softmax : public Module {
 public:
  explicit Softmax(int dim) : dim_(dim) {}
  Variable forward(const Variable& x) override { return softmax(x, dim_); }
  std::string describe() const override;

 private:
  int dim_;
};

class LogSoftmax : public Module {
 public:
  explicit LogSoftmax(int dim) : dim_(dim) {}
  Variable forward(const Variable& x) override { return log_softmax(x, dim_); }
  std::string describe() const override;

 private:
  int dim_;
};

/// Zeroes each element with probability p in training and scales the rest by 1 / (1 - p). The mask follows
/// from the step context (seed, step, layer, place in the global batch). Srivastava et al., JMLR 15, 2014.
class Dropout : public Module {
 public:
  explicit Dropout(double p = 0.5);
  Variable forward(const Variable& x) override;
  std::string describe() const override;

 private:
  double p_;
};

struct Flatten : Module {
  Variable forward(const Variable& x) override { return flatten(x); }
};

/// Pads with zeros; one number pads all four sides.
class ZeroPad2d : public Module {
 public:
  explicit ZeroPad2d(const Pad2d& pad) : pad_(pad) {}
  explicit ZeroPad2d(std::int64_t all) : pad_{all, all, all, all} {}
  Variable forward(const Variable& x) override { return pad2d(x, pad_); }
  std::string describe() const override;

 private:
  Pad2d pad_;
};

/// Pads with the image mirrored at its border pixels; one number pads all four sides.
class ReflectionPad2d : public Module {
 public:
  explicit ReflectionPad2d(const Pad2d& pad) : pad_(pad) {}
  explicit ReflectionPad2d(std::int64_t all) : pad_{all, all, all, all} {}
  Variable forward(const Variable& x) override { return pad2d(x, pad_, PadMode::reflect); }
  std::string describe() const override;

 private:
  Pad2d pad_;
};

/// Modules run one after another; it owns them, and names them "0", "1", ...
class Sequential : public Module {
 public:
  /// Makes the next module: `body.emplace<nn::Conv2d>(3, 64, nn::Conv2dOptions{.kernel = 3})`.
  template <typename M, typename... Args>
  M& emplace(Args&&... args) {
    auto module = std::make_unique<M>(std::forward<Args>(args)...);
    M& made = *module;
    add(std::to_string(owned_.size()), made);
    owned_.push_back(std::move(module));
    return made;
  }
  Variable forward(const Variable& x) override;

 private:
  std::vector<std::unique_ptr<Module>> owned_;
};

}  // namespace millrace::nn
