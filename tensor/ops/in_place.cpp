#include <cmath>

#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/launch.h"
#include "tensor/ops.h"
#include "tensor/ops/operand.h"

namespace millrace {

namespace {

void check_keeps_type(const char* name, DType dtype, bool fits, std::string_view operand) {
  if (!fits) {
    throw InputError("{}: {} does not keep the type {}; convert with to() or use the form without _", name,
                     operand, dtype);
  }
}

/// self = self + alpha * other
void add_in_place(const char* name, Tensor& self, const Tensor& other, double alpha) {
  check_operands(name, {&self, &other});
  check_keeps_type(name, self.dtype(), is_floating(self.dtype()) || !is_floating(other.dtype()),
                   name_of(other.dtype()));
  check_keeps_type(name, self.dtype(), is_floating(self.dtype()) || alpha == std::floor(alpha),
                   "a factor that is not whole");
  if (broadcast_shapes(self.shape(), other.shape(), name) != self.shape()) {
    throw InputError("{}: shape {} does not fit into {} in place", name, other.shape(), self.shape());
  }
  const Tensor same = other.to(self.dtype()).expand(self.shape());
  produce({name, self.shape(), self.dtype()}, {&self, &same}, &self, [&](Tensor& out) {
    if (alpha == 1) {
      MILLRACE_LAUNCH(out.device(), binary, BinaryOp::add, self, same, out);
    } else {
      MILLRACE_LAUNCH(out.device(), add_scaled, self, same, alpha, out);
    }
  });
}

void binary_in_place(BinaryOp op, const char* name, Tensor& self, const Tensor& other) {
  check_operands(name, {&self, &other});
  const bool fits = is_floating(self.dtype()) || (!is_floating(other.dtype()) && op != BinaryOp::div);
  check_keeps_type(name, self.dtype(), fits, op == BinaryOp::div ? "a quotient" : name_of(other.dtype()));
  if (broadcast_shapes(self.shape(), other.shape(), name) != self.shape()) {
    throw InputError("{}: shape {} does not fit into {} in place", name, other.shape(), self.shape());
  }
  const Tensor same = other.to(self.dtype()).expand(self.shape());
  produce({name, self.shape(), self.dtype()}, {&self, &same}, &self,
          [&](Tensor& out) { MILLRACE_LAUNCH(out.device(), binary, op, self, same, out); });
}

void number_in_place(BinaryOp op, const char* name, Tensor& self, double value) {
  check_writable(name, self);
  const bool whole = value == std::floor(value) && op != BinaryOp::div && !(op == BinaryOp::pow && value < 0);
  check_keeps_type(name, self.dtype(), is_floating(self.dtype()) || whole,
                   fmt::format("the number {}", value));
  MILLRACE_LAUNCH(self.device(), binary_scalar, op, self, value, self);
  self.storage()->bump_version();
}

void unary_in_place(UnaryOp op, const char* name, Tensor& self) {
  check_writable(name, self);
  check_keeps_type(name, self.dtype(), is_floating(self.dtype()) || op == UnaryOp::neg || op == UnaryOp::abs,
                   name);
  MILLRACE_LAUNCH(self.device(), unary, op, self, self);
  self.storage()->bump_version();
}

}  // namespace

Tensor& Tensor::fill_(double value) {
  check_operands("fill_", {this});
  MILLRACE_LAUNCH(device(), fill, *this, value);
  storage_->bump_version();
  return *this;
}

Tensor& Tensor::add_(const Tensor& other, double alpha) {
  add_in_place("add_", *this, other, alpha);
  return *this;
}

Tensor& Tensor::sub_(const Tensor& other, double alpha) {
  add_in_place("sub_", *this, other, -alpha);
  return *this;
}

Tensor& Tensor::mul_(const Tensor& other) {
  binary_in_place(BinaryOp::mul, "mul_", *this, other);
  return *this;
}

Tensor& Tensor::div_(const Tensor& other) {
  binary_in_place(BinaryOp::div, "div_", *this, other);
  return *this;
}

Tensor& Tensor::add_(double value) {
  number_in_place(BinaryOp::add, "add_", *this, value);
  return *this;
}

Tensor& Tensor::sub_(double value) {
  number_in_place(BinaryOp::sub, "sub_", *this, value);
  return *this;
}

Tensor& Tensor::mul_(double value) {
  number_in_place(BinaryOp::mul, "mul_", *this, value);
  return *this;
}

Tensor& Tensor::div_(double value) {
  number_in_place(BinaryOp::div, "div_", *this, value);
  return *this;
}

Tensor& Tensor::pow_(double exponent) {
  number_in_place(BinaryOp::pow, "pow_", *this, exponent);
  return *this;
}

Tensor& Tensor::exp_() {
  unary_in_place(UnaryOp::exp, "exp_", *this);
  return *this;
}

Tensor& Tensor::log_() {
  unary_in_place(UnaryOp::log, "log_", *this);
  return *this;
}

Tensor& Tensor::sqrt_() {
  unary_in_place(UnaryOp::sqrt, "sqrt_", *this);
  return *this;
}

Tensor& Tensor::tanh_() {
  unary_in_place(UnaryOp::tanh, "tanh_", *this);
  return *this;
}

Tensor& Tensor::neg_() {
  unary_in_place(UnaryOp::neg, "neg_", *this);
  return *this;
}

Tensor& Tensor::abs_() {
  unary_in_place(UnaryOp::abs, "abs_", *this);
  return *this;
}

Tensor& Tensor::clamp_(double low, double high) {
  check_writable("clamp_", *this);
  if (!(low <= high)) {
    throw InputError("clamp_: got the bounds {} and {}, expected low <= high", low, high);
  }
  for (const double bound : {low, high}) {
    check_keeps_type("clamp_", dtype(), is_floating(dtype()) || bound == std::floor(bound),
                     fmt::format("the bound {}", bound));
  }
  MILLRACE_LAUNCH(device(), clamp, *this, low, high, *this);
  storage_->bump_version();
  return *this;
}

}  // namespace millrace
