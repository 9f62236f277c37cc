#include <cmath>

#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/launch.h"
#include "tensor/ops.h"
#include "tensor/ops/operand.h"

namespace millrace {

namespace {

/// `keeps_integers` says that the result of an integer is one; otherwise integers are computed as f32.
Tensor unary(UnaryOp op, const char* name, const Tensor& x, bool keeps_integers = false,
             Tensor* given = nullptr) {
  check_operands(name, {&x});
  const DType dtype = keeps_integers || is_floating(x.dtype()) ? x.dtype() : DType::f32;
  return produce({name, x.shape(), dtype}, {&x}, given,
                 [&](Tensor& out) { MILLRACE_LAUNCH(x.device(), unary, op, x.to(dtype), out); });
}

Tensor clamped(const Tensor& x, double low, double high, Tensor* given) {
  check_operands("clamp", {&x});
  if (!(low <= high)) {
    throw InputError("clamp: got the bounds {} and {}, expected low <= high", low, high);
  }
  const bool stays = is_floating(x.dtype()) || (low == std::floor(low) && high == std::floor(high));
  const DType dtype = stays ? x.dtype() : DType::f32;
  return produce({"clamp", x.shape(), dtype}, {&x}, given,
                 [&](Tensor& out) { MILLRACE_LAUNCH(x.device(), clamp, x.to(dtype), low, high, out); });
}

}  // namespace

Tensor exp(const Tensor& x) { return unary(UnaryOp::exp, "exp", x); }
Tensor log(const Tensor& x) { return unary(UnaryOp::log, "log", x); }
Tensor sqrt(const Tensor& x) { return unary(UnaryOp::sqrt, "sqrt", x); }
Tensor tanh(const Tensor& x) { return unary(UnaryOp::tanh, "tanh", x); }
Tensor abs(const Tensor& x) { return unary(UnaryOp::abs, "abs", x, true); }
void exp(const Tensor& x, Tensor& out) { unary(UnaryOp::exp, "exp", x, false, &out); }
void log(const Tensor& x, Tensor& out) { unary(UnaryOp::log, "log", x, false, &out); }
void sqrt(const Tensor& x, Tensor& out) { unary(UnaryOp::sqrt, "sqrt", x, false, &out); }
void tanh(const Tensor& x, Tensor& out) { unary(UnaryOp::tanh, "tanh", x, false, &out); }
void abs(const Tensor& x, Tensor& out) { unary(UnaryOp::abs, "abs", x, true, &out); }
Tensor operator-(const Tensor& a) { return unary(UnaryOp::neg, "neg", a, true); }

Tensor clamp(const Tensor& x, double low, double high) { return clamped(x, low, high, nullptr); }
void clamp(const Tensor& x, double low, double high, Tensor& out) { clamped(x, low, high, &out); }

}  // namespace millrace
