#pragma once

#include <optional>
#include <span>
#include <vector>

#include "tensor/tensor.h"

/// Operations on tensors, without gradients. Shapes broadcast; two types meet in the wider one, as in PyTorch
/// (a number never changes a floating type). A last argument `out` is written into, must have the result's
/// shape and type, and may share memory with the operands.
namespace millrace {

/// The type that two operands meet in.
DType promote(DType a, DType b);

// Arithmetic, elementwise.
Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor maximum(const Tensor& a, const Tensor& b);
Tensor minimum(const Tensor& a, const Tensor& b);
void add(const Tensor& a, const Tensor& b, Tensor& out);
void sub(const Tensor& a, const Tensor& b, Tensor& out);
void mul(const Tensor& a, const Tensor& b, Tensor& out);
void div(const Tensor& a, const Tensor& b, Tensor& out);
void maximum(const Tensor& a, const Tensor& b, Tensor& out);
void minimum(const Tensor& a, const Tensor& b, Tensor& out);
Tensor add(const Tensor& a, double b);
Tensor mul(const Tensor& a, double b);
void add(const Tensor& a, double b, Tensor& out);
void mul(const Tensor& a, double b, Tensor& out);
inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
Tensor operator+(const Tensor& a, double b);
Tensor operator-(const Tensor& a, double b);
Tensor operator*(const Tensor& a, double b);
Tensor operator/(const Tensor& a, double b);
Tensor operator+(double a, const Tensor& b);
Tensor operator-(double a, const Tensor& b);
Tensor operator*(double a, const Tensor& b);
Tensor operator/(double a, const Tensor& b);
Tensor operator-(const Tensor& a);

// Comparison; the result is u8, 0 or 1.
Tensor equal(const Tensor& a, const Tensor& b);
Tensor not_equal(const Tensor& a, const Tensor& b);
Tensor less(const Tensor& a, const Tensor& b);
Tensor less_equal(const Tensor& a, const Tensor& b);
Tensor greater(const Tensor& a, const Tensor& b);
Tensor greater_equal(const Tensor& a, const Tensor& b);
Tensor equal(const Tensor& a, double b);
Tensor not_equal(const Tensor& a, double b);
Tensor less(const Tensor& a, double b);
Tensor less_equal(const Tensor& a, double b);
Tensor greater(const Tensor& a, double b);
Tensor greater_equal(const Tensor& a, double b);
void equal(const Tensor& a, const Tensor& b, Tensor& out);
void not_equal(const Tensor& a, const Tensor& b, Tensor& out);
void less(const Tensor& a, const Tensor& b, Tensor& out);
void less_equal(const Tensor& a, const Tensor& b, Tensor& out);
void greater(const Tensor& a, const Tensor& b, Tensor& out);
void greater_equal(const Tensor& a, const Tensor& b, Tensor& out);
void equal(const Tensor& a, double b, Tensor& out);
void not_equal(const Tensor& a, double b, Tensor& out);
void less(const Tensor& a, double b, Tensor& out);
void less_equal(const Tensor& a, double b, Tensor& out);
void greater(const Tensor& a, double b, Tensor& out);
void greater_equal(const Tensor& a, double b, Tensor& out);
/// Whether shapes and all values agree within atol + rtol * |b|; false where either is not a number.
bool all_close(const Tensor& a, const Tensor& b, double rtol = 1e-5, double atol = 1e-8);

// Functions of one tensor, elementwise.
Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
Tensor sqrt(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor abs(const Tensor& x);
void exp(const Tensor& x, Tensor& out);
void log(const Tensor& x, Tensor& out);
void sqrt(const Tensor& x, Tensor& out);
void tanh(const Tensor& x, Tensor& out);
void abs(const Tensor& x, Tensor& out);
Tensor pow(const Tensor& x, double exponent);
Tensor clamp(const Tensor& x, double low, double high);
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);  ///< `condition` is u8.
void pow(const Tensor& x, double exponent, Tensor& out);
void clamp(const Tensor& x, double low, double high, Tensor& out);
void where(const Tensor& condition, const Tensor& a, const Tensor& b, Tensor& out);

// Reductions. No dims means all; with keep_dims the reduced ones stay with size 1.
struct ReduceOptions {
  std::vector<int> dims = {};
  bool keep_dims = false;
};
Tensor sum(const Tensor& x, const ReduceOptions& options = {});  ///< Integers sum to i64.
Tensor mean(const Tensor& x, const ReduceOptions& options = {});
Tensor max(const Tensor& x, const ReduceOptions& options = {});
Tensor min(const Tensor& x, const ReduceOptions& options = {});
Tensor argmax(const Tensor& x, int dim, bool keep_dims = false);  ///< i64; the first of equal maxima.
Tensor argmax(const Tensor& x);                                   ///< Over all elements, counted row by row.
/// The variance with divisor n - correction.
Tensor var(const Tensor& x, const ReduceOptions& options = {}, int correction = 1);
void sum(const Tensor& x, const ReduceOptions& options, Tensor& out);
void mean(const Tensor& x, const ReduceOptions& options, Tensor& out);
void max(const Tensor& x, const ReduceOptions& options, Tensor& out);
void min(const Tensor& x, const ReduceOptions& options, Tensor& out);
void argmax(const Tensor& x, int dim, bool keep_dims, Tensor& out);
void argmax(const Tensor& x, Tensor& out);
void var(const Tensor& x, const ReduceOptions& options, int correction, Tensor& out);

// Matrix products: [m, k] x [k, n], [b, m, k] x [b, k, n], vectors as in PyTorch.
Tensor matmul(const Tensor& a, const Tensor& b);
void matmul(const Tensor& a, const Tensor& b, Tensor& out);

// Selection and joining.
Tensor index_select(const Tensor& x, int dim, const Tensor& index);  ///< `index`: i64, one dimension.
Tensor gather(const Tensor& x, int dim, const Tensor& index);  ///< out[i][j] = x[index[i][j]][j] for dim 0.
/// The adjoint of gather: into[index[i][j]][j] += source[i][j] for dim 0.
void scatter_add_(Tensor& into, int dim, const Tensor& index, const Tensor& source);
Tensor cat(std::span<const Tensor> tensors, int dim = 0);
Tensor stack(std::span<const Tensor> tensors, int dim = 0);
void index_select(const Tensor& x, int dim, const Tensor& index, Tensor& out);
void gather(const Tensor& x, int dim, const Tensor& index, Tensor& out);
void cat(std::span<const Tensor> tensors, int dim, Tensor& out);
void stack(std::span<const Tensor> tensors, int dim, Tensor& out);
inline Tensor cat(std::initializer_list<Tensor> tensors, int dim = 0) {
  return cat(std::span(tensors.begin(), tensors.size()), dim);
}
inline Tensor stack(std::initializer_list<Tensor> tensors, int dim = 0) {
  return stack(std::span(tensors.begin(), tensors.size()), dim);
}
/// Sums `x` over the dimensions in which it was broadcast from `shape`.
Tensor sum_to(const Tensor& x, const Shape& shape);

}  // namespace millrace
