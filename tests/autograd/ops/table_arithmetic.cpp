#include <algorithm>
#include <cmath>
#include <numbers>

#include "table.h"

namespace millrace::test {

namespace {

using Binary = double (*)(double, double);
using Unary = std::function<double(double)>;

void add_binary(Table& table, const std::string& op,
                const std::function<Variable(const Variable&, const Variable&)>& run, Binary f,
                double low = -1) {
  const std::vector<std::pair<std::string, std::vector<Shape>>> variants = {
      {"same_shape", {{3, 5}, {3, 5}}}, {"image", {{2, 3, 4, 3}, {2, 3, 4, 3}}}, {"one", {{1, 1}, {1, 1}}},
      {"row", {{4, 3}, {3}}},           {"channel", {{2, 3, 2, 2}, {3, 1, 1}}},  {"outer", {{4, 1}, {1, 3}}},
      {"scalar", {{}, {2, 3}}},
  };
  for (const auto& [variant, shapes] : variants) {
    table.push_back({.op = op,
                     .variant = variant,
                     .shapes = shapes,
                     .run = [run](Inputs x) { return run(x[0], x[1]); },
                     .reference =
                         [f](const Arrays& x) {
                           return make(broadcast_shapes(x[0].shape, x[1].shape, "reference"),
                                       [&](const Shape& i) { return f(x[0].at(i), x[1].at(i)); });
                         },
                     .low = low});
  }
}

void add_unary(Table& table, const std::string& op, const std::string& variant,
               const std::function<Variable(const Variable&)>& run, const Unary& f, double low = -2,
               double high = 2) {
  for (const auto& [kind, shape] : {std::pair("matrix", Shape{3, 7}), std::pair("image", Shape{2, 5, 3, 2}),
                                    std::pair("one", Shape{1})}) {
    table.push_back(
        {.op = op,
         .variant = variant + kind,
         .shapes = {shape},
         .run = [run](Inputs x) { return run(x[0]); },
         .reference =
             [f](const Arrays& x) { return make(x[0].shape, [&](const Shape& i) { return f(x[0].at(i)); }); },
         .low = low,
         .high = high});
  }
}

void add_binary_cases(Table& table) {
  using V = const Variable&;
  const Binary plus = [](double a, double b) { return a + b; };
  const Binary minus = [](double a, double b) { return a - b; };
  const Binary times = [](double a, double b) { return a * b; };
  const Binary over = [](double a, double b) { return a / b; };
  add_binary(
      table, "add", [](V a, V b) { return add(a, b); }, plus);
  add_binary(
      table, "sub", [](V a, V b) { return sub(a, b); }, minus);
  add_binary(
      table, "mul", [](V a, V b) { return mul(a, b); }, times);
  add_binary(
      table, "div", [](V a, V b) { return div(a, b); }, over, 0.5);
  add_binary(
      table, "maximum", [](V a, V b) { return maximum(a, b); },
      [](double a, double b) { return std::max(a, b); });
  add_binary(
      table, "minimum", [](V a, V b) { return minimum(a, b); },
      [](double a, double b) { return std::min(a, b); });
  add_binary(
      table, "operator+", [](V a, V b) { return a + b; }, plus);
  add_binary(
      table, "operator-", [](V a, V b) { return a - b; }, minus);
  add_binary(
      table, "operator*", [](V a, V b) { return a * b; }, times);
  add_binary(
      table, "operator/", [](V a, V b) { return a / b; }, over, 0.5);
  table.push_back({.op = "mul",
                   .variant = "with_itself",
                   .shapes = {{3, 5}},
                   .run = [](Inputs x) { return x[0] * x[0]; },
                   .reference =
                       [](const Arrays& x) {
                         return make(x[0].shape, [&](const Shape& i) { return x[0].at(i) * x[0].at(i); });
                       }});
}

void add_number_cases(Table& table) {
  using V = const Variable&;
  add_unary(
      table, "add", "number_", [](V x) { return add(x, 1.5); }, [](double x) { return x + 1.5; });
  add_unary(
      table, "mul", "number_", [](V x) { return mul(x, -1.5); }, [](double x) { return x * -1.5; });
  add_unary(
      table, "operator+", "number_", [](V x) { return x + 1.5; }, [](double x) { return x + 1.5; });
  add_unary(
      table, "operator-", "number_", [](V x) { return x - 1.5; }, [](double x) { return x - 1.5; });
  add_unary(
      table, "operator*", "number_", [](V x) { return x * 1.5; }, [](double x) { return x * 1.5; });
  add_unary(
      table, "operator/", "number_", [](V x) { return x / 1.5; }, [](double x) { return x / 1.5; });
  add_unary(
      table, "operator+", "number_first_", [](V x) { return 1.5 + x; }, [](double x) { return 1.5 + x; });
  add_unary(
      table, "operator-", "number_first_", [](V x) { return 1.5 - x; }, [](double x) { return 1.5 - x; });
  add_unary(
      table, "operator*", "number_first_", [](V x) { return 1.5 * x; }, [](double x) { return 1.5 * x; });
  add_unary(
      table, "operator/", "number_first_", [](V x) { return 1.5 / x; }, [](double x) { return 1.5 / x; },
      0.5);
  add_unary(
      table, "operator-", "negated_", [](V x) { return -x; }, [](double x) { return -x; });
}

void add_function_cases(Table& table) {
  using V = const Variable&;
  add_unary(
      table, "exp", "", [](V x) { return exp(x); }, [](double x) { return std::exp(x); });
  add_unary(
      table, "log", "", [](V x) { return log(x); }, [](double x) { return std::log(x); }, 0.3);
  add_unary(
      table, "sqrt", "", [](V x) { return sqrt(x); }, [](double x) { return std::sqrt(x); }, 0.3);
  add_unary(
      table, "tanh", "", [](V x) { return tanh(x); }, [](double x) { return std::tanh(x); });
  add_unary(
      table, "abs", "", [](V x) { return abs(x); }, [](double x) { return std::abs(x); });
  add_unary(
      table, "pow", "cube_", [](V x) { return pow(x, 3); }, [](double x) { return x * x * x; });
  add_unary(
      table, "pow", "square_", [](V x) { return pow(x, 2); }, [](double x) { return x * x; });
  add_unary(
      table, "pow", "fraction_", [](V x) { return pow(x, -0.5); }, [](double x) { return std::pow(x, -0.5); },
      0.3);
  add_unary(
      table, "clamp", "", [](V x) { return clamp(x, -0.71, 0.93); },
      [](double x) { return std::clamp(x, -0.71, 0.93); });
  add_unary(
      table, "relu", "", [](V x) { return relu(x); }, [](double x) { return std::max(x, 0.0); });
  add_unary(
      table, "gelu", "", [](V x) { return gelu(x); },
      [](double x) { return 0.5 * x * std::erfc(-x / std::numbers::sqrt2); });
  add_unary(
      table, "sigmoid", "", [](V x) { return sigmoid(x); }, [](double x) { return 1 / (1 + std::exp(-x)); });
}

void add_where_cases(Table& table) {
  const Tensor condition = tensor({{1, 0, 1}, {0, 0, 1}}, {.dtype = DType::u8});
  for (const auto& [variant, a, b] :
       {std::tuple("same_shape", Shape{2, 3}, Shape{2, 3}), std::tuple("broadcast", Shape{3}, Shape{2, 1})}) {
    table.push_back({.op = "where",
                     .variant = variant,
                     .shapes = {a, b},
                     .run = [condition](Inputs x) { return where(condition.to(x[0].device()), x[0], x[1]); },
                     .reference =
                         [condition](const Arrays& x) {
                           return make({2, 3}, [&](const Shape& i) {
                             return condition.at({i[0], i[1]}) != 0 ? x[0].at(i) : x[1].at(i);
                           });
                         }});
  }
}

}  // namespace

void add_arithmetic_cases(Table& table) {
  add_binary_cases(table);
  add_number_cases(table);
  add_function_cases(table);
  add_where_cases(table);
}

}  // namespace millrace::test
