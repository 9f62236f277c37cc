#pragma once

#include <cstdint>
#include <string_view>

/// Names the operation, for kernels that do several.
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

}  // namespace millrace
