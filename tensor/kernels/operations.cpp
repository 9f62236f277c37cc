#include "tensor/kernels/operations.h"

#include <cstddef>

namespace millrace {

namespace {

template <typename Op, std::size_t N>
std::string_view word_of(Op op, const std::string_view (&words)[N]) {
  return words[static_cast<std::size_t>(op)];
}

}  // namespace

std::string_view word(BinaryOp op) {
  return word_of(op, {"add", "sub", "mul", "div", "maximum", "minimum", "pow", "rsub", "rdiv"});
}
std::string_view word(CompareOp op) {
  return word_of(op, {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"});
}
std::string_view word(UnaryOp op) {
  return word_of(op, {"exp", "log", "sqrt", "tanh", "abs", "neg", "sigmoid", "relu", "gelu"});
}
std::string_view word(ReduceOp op) { return word_of(op, {"sum", "max", "min"}); }

}  // namespace millrace
