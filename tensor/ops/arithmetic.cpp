#include <algorithm>
#include <cmath>

#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/recording.h"
#include "tensor/ops.h"
#include "tensor/ops/operand.h"

namespace millrace {

DType promote(DType a, DType b) {
  if (a == b) {
    return a;
  }
  if (is_floating(a) != is_floating(b)) {
    return is_floating(a) ? a : b;
  }
  if (is_floating(a)) {
    return a == DType::f64 || b == DType::f64 ? DType::f64 : DType::f32;
  }
  return a == DType::i64 || b == DType::i64 ? DType::i64 : DType::i32;
}

namespace {

bool is_whole(double value) { return std::abs(value) < 0x1p63 && value == std::floor(value); }

/// The type of a tensor's elements after arithmetic with a number.
DType with_number(DType dtype, BinaryOp op, double number) {
  if (is_floating(dtype)) {
    return dtype;
  }
  const bool divides = op == BinaryOp::div || op == BinaryOp::rdiv || (op == BinaryOp::pow && number < 0);
  const bool stays = is_whole(number) && !divides;
  return stays ? dtype : DType::f32;
}

DType type_of(BinaryOp op, const Tensor& a, const Tensor& b) {
  const DType dtype = promote(a.dtype(), b.dtype());
  return op == BinaryOp::div && !is_floating(dtype) ? DType::f32 : dtype;
}

Tensor expanded(const Tensor& x, const Shape& shape, DType dtype) { return x.to(dtype).expand(shape); }

Tensor binary(BinaryOp op, const char* name, const Tensor& a, const Tensor& b, Tensor* given = nullptr) {
  check_operands(name, {&a, &b});
  const DType dtype = type_of(op, a, b);
  if (a.shape() == b.shape() && a.dtype() == dtype && b.dtype() == dtype) {
    return produce({name, a.shape(), dtype}, {&a, &b}, given,
                   [&](Tensor& out) { MILLRACE_LAUNCH(a.device(), binary, op, a, b, out); });
  }
  const Shape shape = broadcast_shapes(a.shape(), b.shape(), name);
  return produce({name, shape, dtype}, {&a, &b}, given, [&](Tensor& out) {
    MILLRACE_LAUNCH(a.device(), binary, op, expanded(a, shape, dtype), expanded(b, shape, dtype), out);
  });
}

Tensor binary_scalar(BinaryOp op, const char* name, const Tensor& a, double b, Tensor* given = nullptr) {
  check_operands(name, {&a});
  const DType dtype = with_number(a.dtype(), op, b);
  return produce({name, a.shape(), dtype}, {&a}, given,
                 [&](Tensor& out) { MILLRACE_LAUNCH(a.device(), binary_scalar, op, a.to(dtype), b, out); });
}

Tensor compare(CompareOp op, const char* name, const Tensor& a, const Tensor& b, Tensor* given = nullptr) {
  check_operands(name, {&a, &b});
  const DType dtype = promote(a.dtype(), b.dtype());
  const Shape shape = broadcast_shapes(a.shape(), b.shape(), name);
  return produce({name, shape, DType::u8}, {&a, &b}, given, [&](Tensor& out) {
    MILLRACE_LAUNCH(a.device(), compare, op, expanded(a, shape, dtype), expanded(b, shape, dtype), out);
  });
}

Tensor compare(CompareOp op, const char* name, const Tensor& a, double b, Tensor* given = nullptr) {
  check_operands(name, {&a});
  // Integers meet a number exactly: as i64 where it is whole, else as f64. Floats meet it in their own type,
  // as in PyTorch.
  const DType dtype = is_floating(a.dtype()) ? a.dtype() : is_whole(b) ? DType::i64 : DType::f64;
  return compare(op, name, a.to(dtype), full({}, b, {.dtype = dtype, .device = a.device()}), given);
}

Tensor choose(const Tensor& condition, const Tensor& a, const Tensor& b, Tensor* given) {
  check_operands("where", {&condition, &a, &b});
  if (condition.dtype() != DType::u8) {
    throw InputError("where: got a condition of type {}, expected u8, as comparisons give it",
                     condition.dtype());
  }
  const DType dtype = promote(a.dtype(), b.dtype());
  const Shape shape =
      broadcast_shapes(broadcast_shapes(a.shape(), b.shape(), "where"), condition.shape(), "where");
  return produce({"where", shape, dtype}, {&a, &b, &condition}, given, [&](Tensor& out) {
    MILLRACE_LAUNCH(a.device(), where, condition.expand(shape), expanded(a, shape, dtype),
                    expanded(b, shape, dtype), out);
  });
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) { return binary(BinaryOp::add, "add", a, b); }
Tensor sub(const Tensor& a, const Tensor& b) { return binary(BinaryOp::sub, "sub", a, b); }
Tensor mul(const Tensor& a, const Tensor& b) { return binary(BinaryOp::mul, "mul", a, b); }
Tensor div(const Tensor& a, const Tensor& b) { return binary(BinaryOp::div, "div", a, b); }
Tensor maximum(const Tensor& a, const Tensor& b) { return binary(BinaryOp::maximum, "maximum", a, b); }
Tensor minimum(const Tensor& a, const Tensor& b) { return binary(BinaryOp::minimum, "minimum", a, b); }
void add(const Tensor& a, const Tensor& b, Tensor& out) { binary(BinaryOp::add, "add", a, b, &out); }
void sub(const Tensor& a, const Tensor& b, Tensor& out) { binary(BinaryOp::sub, "sub", a, b, &out); }
void mul(const Tensor& a, const Tensor& b, Tensor& out) { binary(BinaryOp::mul, "mul", a, b, &out); }
void div(const Tensor& a, const Tensor& b, Tensor& out) { binary(BinaryOp::div, "div", a, b, &out); }
void maximum(const Tensor& a, const Tensor& b, Tensor& out) {
  binary(BinaryOp::maximum, "maximum", a, b, &out);
}
void minimum(const Tensor& a, const Tensor& b, Tensor& out) {
  binary(BinaryOp::minimum, "minimum", a, b, &out);
}

Tensor add(const Tensor& a, double b) { return binary_scalar(BinaryOp::add, "add", a, b); }
Tensor mul(const Tensor& a, double b) { return binary_scalar(BinaryOp::mul, "mul", a, b); }
Tensor pow(const Tensor& x, double exponent) { return binary_scalar(BinaryOp::pow, "pow", x, exponent); }
void add(const Tensor& a, double b, Tensor& out) { binary_scalar(BinaryOp::add, "add", a, b, &out); }
void mul(const Tensor& a, double b, Tensor& out) { binary_scalar(BinaryOp::mul, "mul", a, b, &out); }
void pow(const Tensor& x, double exponent, Tensor& out) {
  binary_scalar(BinaryOp::pow, "pow", x, exponent, &out);
}
Tensor operator+(const Tensor& a, double b) { return add(a, b); }
Tensor operator-(const Tensor& a, double b) { return binary_scalar(BinaryOp::sub, "sub", a, b); }
Tensor operator*(const Tensor& a, double b) { return mul(a, b); }
Tensor operator/(const Tensor& a, double b) { return binary_scalar(BinaryOp::div, "div", a, b); }
Tensor operator+(double a, const Tensor& b) { return add(b, a); }
Tensor operator-(double a, const Tensor& b) { return binary_scalar(BinaryOp::rsub, "sub", b, a); }
Tensor operator*(double a, const Tensor& b) { return mul(b, a); }
Tensor operator/(double a, const Tensor& b) { return binary_scalar(BinaryOp::rdiv, "div", b, a); }

Tensor equal(const Tensor& a, const Tensor& b) { return compare(CompareOp::equal, "equal", a, b); }
Tensor not_equal(const Tensor& a, const Tensor& b) {
  return compare(CompareOp::not_equal, "not_equal", a, b);
}
Tensor less(const Tensor& a, const Tensor& b) { return compare(CompareOp::less, "less", a, b); }
Tensor less_equal(const Tensor& a, const Tensor& b) {
  return compare(CompareOp::less_equal, "less_equal", a, b);
}
Tensor greater(const Tensor& a, const Tensor& b) { return compare(CompareOp::greater, "greater", a, b); }
Tensor greater_equal(const Tensor& a, const Tensor& b) {
  return compare(CompareOp::greater_equal, "greater_equal", a, b);
}
Tensor equal(const Tensor& a, double b) { return compare(CompareOp::equal, "equal", a, b); }
Tensor not_equal(const Tensor& a, double b) { return compare(CompareOp::not_equal, "not_equal", a, b); }
Tensor less(const Tensor& a, double b) { return compare(CompareOp::less, "less", a, b); }
Tensor less_equal(const Tensor& a, double b) { return compare(CompareOp::less_equal, "less_equal", a, b); }
Tensor greater(const Tensor& a, double b) { return compare(CompareOp::greater, "greater", a, b); }
Tensor greater_equal(const Tensor& a, double b) {
  return compare(CompareOp::greater_equal, "greater_equal", a, b);
}

void equal(const Tensor& a, const Tensor& b, Tensor& out) { compare(CompareOp::equal, "equal", a, b, &out); }
void not_equal(const Tensor& a, const Tensor& b, Tensor& out) {
  compare(CompareOp::not_equal, "not_equal", a, b, &out);
}
void less(const Tensor& a, const Tensor& b, Tensor& out) { compare(CompareOp::less, "less", a, b, &out); }
void less_equal(const Tensor& a, const Tensor& b, Tensor& out) {
  compare(CompareOp::less_equal, "less_equal", a, b, &out);
}
void greater(const Tensor& a, const Tensor& b, Tensor& out) {
  compare(CompareOp::greater, "greater", a, b, &out);
}
void greater_equal(const Tensor& a, const Tensor& b, Tensor& out) {
  compare(CompareOp::greater_equal, "greater_equal", a, b, &out);
}
void equal(const Tensor& a, double b, Tensor& out) { compare(CompareOp::equal, "equal", a, b, &out); }
void not_equal(const Tensor& a, double b, Tensor& out) {
  compare(CompareOp::not_equal, "not_equal", a, b, &out);
}
void less(const Tensor& a, double b, Tensor& out) { compare(CompareOp::less, "less", a, b, &out); }
void less_equal(const Tensor& a, double b, Tensor& out) {
  compare(CompareOp::less_equal, "less_equal", a, b, &out);
}
void greater(const Tensor& a, double b, Tensor& out) { compare(CompareOp::greater, "greater", a, b, &out); }
void greater_equal(const Tensor& a, double b, Tensor& out) {
  compare(CompareOp::greater_equal, "greater_equal", a, b, &out);
}

bool all_close(const Tensor& a, const Tensor& b, double rtol, double atol) {
  check_operands("all_close", {&a});
  check_operands("all_close", {&b});
  if (a.shape() != b.shape()) {
    return false;
  }
  const Tensor left = a.to(kCpu).to(DType::f64).contiguous();
  const Tensor right = b.to(kCpu).to(DType::f64).contiguous();
  refuse_recording("it compares elements on the host");
  const double* const x = left.data<double>();
  return std::equal(x, x + left.numel(), right.data<double>(), [=](double v, double reference) {
    return v == reference || std::abs(v - reference) <= atol + rtol * std::abs(reference);
  });
}

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  return choose(condition, a, b, nullptr);
}
void where(const Tensor& condition, const Tensor& a, const Tensor& b, Tensor& out) {
  choose(condition, a, b, &out);
}

}  // namespace millrace
