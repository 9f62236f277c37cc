#pragma once

#include <cstdint>
#include <string_view>

#include "tensor/kernels/options.h"
#include "tensor/tensor.h"

/// The seam between devices: each kernel is declared once here, defined in tensor/cpu/ and, but for a few, in
/// tensor/cuda/, and launched with MILLRACE_LAUNCH (launch.h). Callers check shapes and types and allocate
/// `out`; kernels assert. Unless a line says otherwise, a kernel overwrites its outputs, outputs are dense,
/// and inputs are dense in the same memory order as the output. Image kernels take shapes N, C, H, W stored
/// channels-last.
#define MILLRACE_KERNEL(name, ...) \
  namespace cpu {                  \
  void name(__VA_ARGS__);          \
  }                                \
  namespace cuda {                 \
  void name(__VA_ARGS__);          \
  }

namespace millrace {

/// rsub and rdiv take their operands the other way round, for a number on the left.
enum class BinaryOp : std::uint8_t { add, sub, mul, div, maximum, minimum, pow, rsub, rdiv };
enum class CompareOp : std::uint8_t { equal, not_equal, less, less_equal, greater, greater_equal };
enum class UnaryOp : std::uint8_t { exp, log, sqrt, tanh, abs, neg, sigmoid, relu, gelu };
enum class ReduceOp : std::uint8_t { sum, max, min };
/// How a launch hook names them: "gelu".
std::string_view word(BinaryOp op);
std::string_view word(CompareOp op);
std::string_view word(UnaryOp op);
std::string_view word(ReduceOp op);

// Any strides, any types (see tensor/ops.h for which meet).
MILLRACE_KERNEL(fill, Tensor& out, double value)
MILLRACE_KERNEL(copy, const Tensor& source, Tensor& out)  // same shape, any strides; converts
MILLRACE_KERNEL(binary, BinaryOp op, const Tensor& a, const Tensor& b,
                Tensor& out)  // expanded to out's shape; one type
MILLRACE_KERNEL(binary_scalar, BinaryOp op, const Tensor& a, double b, Tensor& out)
MILLRACE_KERNEL(add_scaled, const Tensor& a, const Tensor& b, double alpha, Tensor& out)  // a + alpha * b
MILLRACE_KERNEL(compare, CompareOp op, const Tensor& a, const Tensor& b, Tensor& out)     // out: u8
MILLRACE_KERNEL(clamp, const Tensor& x, double low, double high, Tensor& out)
MILLRACE_KERNEL(where, const Tensor& condition, const Tensor& a, const Tensor& b, Tensor& out)
MILLRACE_KERNEL(unary, UnaryOp op, const Tensor& x, Tensor& out)
// The gradient of `unary` with respect to x, given x and out = op(x) (either may be undefined where op does
// not need it).
MILLRACE_KERNEL(unary_backward, UnaryOp op, const Tensor& grad, const Tensor& x, const Tensor& out,
                Tensor& grad_x)
MILLRACE_KERNEL(arange, double start, double step, Tensor& out)
MILLRACE_KERNEL(reduce, ReduceOp op, const Tensor& x,
                Tensor& out)                                    // out has x's dims, reduced ones of size 1
MILLRACE_KERNEL(argmax, const Tensor& x, int dim, Tensor& out)  // i64, dim of size 1
MILLRACE_KERNEL(index_select, const Tensor& x, int dim, const Tensor& index, Tensor& out)
MILLRACE_KERNEL(gather, const Tensor& x, int dim, const Tensor& index, Tensor& out)
MILLRACE_KERNEL(scatter_add, Tensor& into, int dim, const Tensor& index, const Tensor& source)  // accumulates
MILLRACE_KERNEL(rand_uniform, std::uint64_t seed, std::uint64_t first_block, Tensor& out)
MILLRACE_KERNEL(rand_normal, std::uint64_t seed, std::uint64_t first_block, Tensor& out)

// Matrix products. Two or three dimensions, any of a, b transposed by strides; `bias` [n], dense, may be
// undefined.
MILLRACE_KERNEL(matmul, const Tensor& a, const Tensor& b, const Tensor& bias, Tensor& out)

// Convolution, f32 and bf16 activations with f32 weights [O, I / groups, H, W]; `bias` may be undefined.
MILLRACE_KERNEL(conv2d_forward, const Tensor& x, const Tensor& weight, const Tensor& bias,
                const Conv2dOptions& params, Tensor& out)
MILLRACE_KERNEL(conv2d_backward_data, const Tensor& grad, const Tensor& weight, const Conv2dOptions& params,
                Tensor& grad_x)
MILLRACE_KERNEL(conv2d_backward_weight, const Tensor& x, const Tensor& grad, const Conv2dOptions& params,
                Tensor& grad_weight,
                Tensor& grad_bias)  // grad_bias may be undefined

// A convolution and a max pooling of 2x2 windows behind it in one pass: what is pooled is not written, its
// gradient is made an image at a time. For CPUs alone, and those convolutions of which `conv2d_pools` says
// that it is faster.
namespace cpu {
bool conv2d_pools(DType dtype, const Shape& x, const Shape& weight, bool biased, const Conv2dOptions& params,
                  const Shape& pooled);
// `index`, u8, as of max_pool2d_forward.
void conv2d_max_pool2d_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const Conv2dOptions& params, Tensor& out, Tensor& index);
// `grad`: of the pooling's result.
void conv2d_max_pool2d_backward_data(const Tensor& grad, const Tensor& index, const Tensor& weight,
                                     const Conv2dOptions& params, Tensor& grad_x);
void conv2d_max_pool2d_backward_weight(const Tensor& x, const Tensor& grad, const Tensor& index,
                                       const Conv2dOptions& params, Tensor& grad_weight, Tensor& grad_bias);
}  // namespace cpu

// Pooling.
// `index` holds the winner's place in its window, row by row: u8 where a window has at most 256 places, else
// i32.
MILLRACE_KERNEL(max_pool2d_forward, const Tensor& x, const Pool2dOptions& params, Tensor& out, Tensor& index)
MILLRACE_KERNEL(max_pool2d_backward, const Tensor& grad, const Tensor& index, const Pool2dOptions& params,
                Tensor& grad_x)
MILLRACE_KERNEL(avg_pool2d_forward, const Tensor& x, const Pool2dOptions& params,
                Tensor& out)  // padding counts, as in PyTorch
MILLRACE_KERNEL(avg_pool2d_backward, const Tensor& grad, const Pool2dOptions& params, Tensor& grad_x)

// Batch normalization over N, H, W; all vectors f32 [C], `weight` and `bias` may be undefined.
MILLRACE_KERNEL(batch_norm_statistics, const Tensor& x, Tensor& mean, Tensor& var)  // var: biased
MILLRACE_KERNEL(batch_norm_apply, const Tensor& x, const Tensor& mean, const Tensor& var, double eps,
                const Tensor& weight, const Tensor& bias, Tensor& out)
// With batch statistics the gradient flows through mean and var; with running ones (`training` false) it does
// not.
MILLRACE_KERNEL(batch_norm_backward, const Tensor& grad, const Tensor& x, const Tensor& mean,
                const Tensor& var, double eps, const Tensor& weight, bool training, Tensor& grad_x,
                Tensor& grad_weight, Tensor& grad_bias)

// The same with relu or gelu behind it, in one pass; the gradient needs its input alone. `residual`, added in
// between, may be undefined.
MILLRACE_KERNEL(batch_norm_activation_apply, UnaryOp activation, const Tensor& x, const Tensor& residual,
                const Tensor& mean, const Tensor& var, double eps, const Tensor& weight, const Tensor& bias,
                Tensor& out)
MILLRACE_KERNEL(batch_norm_activation_backward, UnaryOp activation, const Tensor& grad, const Tensor& x,
                const Tensor& mean, const Tensor& var, double eps, const Tensor& weight, const Tensor& bias,
                bool training, Tensor& grad_x, Tensor& grad_weight, Tensor& grad_bias)

// The same, without a residual, with a max pooling of 2x2 windows behind: x has an even height and width. For
// CPUs alone.
namespace cpu {
// `index`, u8, as of max_pool2d_forward.
void batch_norm_max_pool2d_apply(UnaryOp activation, const Tensor& x, const Tensor& mean, const Tensor& var,
                                 double eps, const Tensor& weight, const Tensor& bias, Tensor& out,
                                 Tensor& index);
// `grad`: of the pooling's result.
void batch_norm_max_pool2d_backward(UnaryOp activation, const Tensor& grad, const Tensor& index,
                                    const Tensor& x, const Tensor& mean, const Tensor& var, double eps,
                                    const Tensor& weight, const Tensor& bias, bool training, Tensor& grad_x,
                                    Tensor& grad_weight, Tensor& grad_bias);
}  // namespace cpu

// Rows: x is [rows, columns], row-major.
MILLRACE_KERNEL(softmax, const Tensor& x, Tensor& out)
MILLRACE_KERNEL(softmax_backward, const Tensor& grad, const Tensor& out, Tensor& grad_x)
MILLRACE_KERNEL(log_softmax, const Tensor& x, Tensor& out)
MILLRACE_KERNEL(log_softmax_backward, const Tensor& grad, const Tensor& out, Tensor& grad_x)
// losses[row] = cross entropy of softmax(logits) against the label smoothed by `smoothing`; `labels` is i64
// [rows]. `log_probabilities` is kept for the backward pass.
MILLRACE_KERNEL(cross_entropy_forward, const Tensor& logits, const Tensor& labels, double smoothing,
                Tensor& log_probabilities, Tensor& losses)
// grad_logits[row] = grad[row] * d losses[row] / d logits[row]; grad is f32 [rows] or expanded from one
// number.
MILLRACE_KERNEL(cross_entropy_backward, const Tensor& grad, const Tensor& log_probabilities,
                const Tensor& labels, double smoothing, Tensor& grad_logits)

// out = x * mask / (1 - p), mask drawn from Philox keyed by `key` at each element's row-major place + first.
MILLRACE_KERNEL(dropout, const Tensor& x, double p, std::uint64_t key, std::uint64_t first, Tensor& out)

MILLRACE_KERNEL(pad2d_forward, const Tensor& x, const Pad2d& pad, PadMode mode, Tensor& out)
MILLRACE_KERNEL(pad2d_backward, const Tensor& grad, const Pad2d& pad, PadMode mode, Tensor& grad_x)

}  // namespace millrace

#undef MILLRACE_KERNEL
