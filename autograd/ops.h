#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

#include "autograd/variable.h"
#include "tensor/kernels/options.h"
#include "tensor/ops.h"

/// Differentiable operations. Names and shapes follow PyTorch; errors name the operation and both shapes.
namespace millrace {

// Arithmetic, with broadcasting.
Variable add(const Variable& a, const Variable& b);
Variable sub(const Variable& a, const Variable& b);
Variable mul(const Variable& a, const Variable& b);
Variable div(const Variable& a, const Variable& b);
Variable maximum(const Variable& a, const Variable& b);
Variable minimum(const Variable& a, const Variable& b);
Variable add(const Variable& a, double b);
Variable mul(const Variable& a, double b);
inline Variable operator+(const Variable& a, const Variable& b) { return add(a, b); }
inline Variable operator-(const Variable& a, const Variable& b) { return sub(a, b); }
inline Variable operator*(const Variable& a, const Variable& b) { return mul(a, b); }
inline Variable operator/(const Variable& a, const Variable& b) { return div(a, b); }
Variable operator+(const Variable& a, double b);
Variable operator-(const Variable& a, double b);
Variable operator*(const Variable& a, double b);
Variable operator/(const Variable& a, double b);
Variable operator+(double a, const Variable& b);
Variable operator-(double a, const Variable& b);
Variable operator*(double a, const Variable& b);
Variable operator/(double a, const Variable& b);
Variable operator-(const Variable& a);

// Functions of one variable.
Variable exp(const Variable& x);
Variable log(const Variable& x);
Variable sqrt(const Variable& x);
Variable tanh(const Variable& x);
Variable abs(const Variable& x);
Variable pow(const Variable& x, double exponent);
Variable clamp(const Variable& x, double low, double high);
Variable where(const Tensor& condition, const Variable& a, const Variable& b);
Variable relu(const Variable& x);
Variable gelu(const Variable& x);  ///< Exact: x * Phi(x). Hendrycks and Gimpel, arXiv 1606.08415.
Variable sigmoid(const Variable& x);

// Views and shapes.
Variable view(const Variable& x, const Shape& shape);
Variable reshape(const Variable& x, const Shape& shape);
Variable flatten(const Variable& x, int start_dim = 1);  ///< C, H, W order for images.
Variable permute(const Variable& x, std::initializer_list<int> dims);
Variable transpose(const Variable& x, int a, int b);
Variable t(const Variable& x);
Variable slice(const Variable& x, int dim, std::int64_t start, std::int64_t end, std::int64_t step = 1);
Variable narrow(const Variable& x, int dim, std::int64_t start, std::int64_t length);
Variable select(const Variable& x, int dim, std::int64_t index);
Variable unsqueeze(const Variable& x, int dim);
Variable squeeze(const Variable& x);
Variable squeeze(const Variable& x, int dim);
Variable expand(const Variable& x, const Shape& shape);
Variable contiguous(const Variable& x, MemoryFormat format = MemoryFormat::row_major);
Variable to(const Variable& x, DType dtype);

// Reductions.
Variable sum(const Variable& x, const ReduceOptions& options = {});
Variable mean(const Variable& x, const ReduceOptions& options = {});
Variable max(const Variable& x, const ReduceOptions& options = {});  ///< Equal maxima share the gradient.
Variable min(const Variable& x, const ReduceOptions& options = {});
Variable var(const Variable& x, const ReduceOptions& options = {}, int correction = 1);

// Selection and joining.
Variable index_select(const Variable& x, int dim, const Tensor& index);
Variable gather(const Variable& x, int dim, const Tensor& index);
Variable cat(std::span<const Variable> variables, int dim = 0);
Variable stack(std::span<const Variable> variables, int dim = 0);
inline Variable cat(std::initializer_list<Variable> variables, int dim = 0) {
  return cat(std::span(variables.begin(), variables.size()), dim);
}
inline Variable stack(std::initializer_list<Variable> variables, int dim = 0) {
  return stack(std::span(variables.begin(), variables.size()), dim);
}

// Layers. `x` is f32, or bf16 (on GPUs also f16) with f32 weights (f32 master weights, 16-bit arithmetic).
Variable matmul(const Variable& a, const Variable& b);
/// x [n, in] times weight [out, in] transposed, plus bias [out] (may be undefined).
Variable linear(const Variable& x, const Variable& weight, const Variable& bias = {});
/// x [N, I, H, W], weight [O, I / groups, h, w], bias [O] (may be undefined). `max_pool` halves the result's
/// sides.
Variable conv2d(const Variable& x, const Variable& weight, const Conv2dOptions& options = {});
Variable conv2d(const Variable& x, const Variable& weight, const Variable& bias,
                const Conv2dOptions& options = {});
Variable max_pool2d(const Variable& x, const Pool2dOptions& options);
Variable avg_pool2d(const Variable& x, const Pool2dOptions& options);
Variable adaptive_max_pool2d(const Variable& x, Size2 output);
Variable adaptive_avg_pool2d(const Variable& x, Size2 output);
enum class Activation : std::uint8_t { none, relu, gelu };
struct BatchNormOptions {
  double eps = 1e-5;
  bool training = true;
  Activation activation = Activation::none;  ///< Of the result, in the same pass over memory.
  bool max_pool = false;                     ///< Of 2x2 windows behind all else, for images.
  Tensor mean = {}, var = {};                ///< To normalize by, without training: f32 [C].
};
struct BatchNormResult {
  Variable out;
  Tensor mean, var;  ///< Of the batch in training, var biased; else those of the options.
};
/// x [N, C, H, W] or [N, C]; weight and bias [C] may be undefined; `max_pool` halves the sides. `residual`,
/// of x's shape and type, is added before the activation, which has to be relu then. Ioffe and Szegedy, arXiv
/// 1502.03167.
BatchNormResult batch_norm(const Variable& x, const Variable& weight, const Variable& bias,
                           const BatchNormOptions& options = {}, const Variable& residual = {});
Variable pad2d(const Variable& x, const Pad2d& pad, PadMode mode = PadMode::zero);
/// Zeroes each element with probability p and scales the rest by 1 / (1 - p). The same key and first give the
/// same mask.
Variable dropout(const Variable& x, double p, std::uint64_t key, std::uint64_t first = 0);

// Losses.
Variable softmax(const Variable& x, int dim);
Variable log_softmax(const Variable& x, int dim);
enum class Reduction : std::uint8_t { mean, sum, none };
struct CrossEntropyOptions {
  double label_smoothing = 0;
  Reduction reduction = Reduction::mean;
};
/// logits [n, classes]; target: i64 classes [n], or probabilities [n, classes] of a floating type.
Variable cross_entropy(const Variable& logits, const Tensor& target, const CrossEntropyOptions& options = {});
struct MseOptions {
  Reduction reduction = Reduction::mean;
};
Variable mse_loss(const Variable& input, const Variable& target, const MseOptions& options = {});

}  // namespace millrace
