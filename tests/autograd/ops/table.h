#pragma once

#include <functional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "autograd/ops.h"

/// The table of all differentiable operations: one entry for each use of one, with a naive reference in
/// double. The runner derives values, gradients (finite differences of the reference), types, memory formats
/// and devices from it.
namespace millrace::test {

/// A row-major array of doubles.
struct Array {
  Shape shape;
  std::vector<double> values;

  explicit Array(const Shape& s) : shape(s), values(static_cast<std::size_t>(s.numel())) {}
  /// The element at `index`; an index of more or larger dimensions is broadcast.
  double at(const Shape& index) const { return values[place(index)]; }
  double& at(const Shape& index) { return values[place(index)]; }

 private:
  std::size_t place(const Shape& index) const {
    std::int64_t place = 0;
    const int skipped = index.size() - shape.size();
    for (int d = 0; d < shape.size(); ++d) {
      place = place * shape[d] + (shape[d] == 1 ? 0 : index[skipped + d]);
    }
    return static_cast<std::size_t>(place);
  }
};

using Arrays = std::vector<Array>;

/// Calls `f(index)` for every index of `shape` in row-major order.
template <typename F>
void for_each_index(const Shape& shape, F&& f) {
  Shape index = shape;
  for (std::int64_t flat = 0; flat < shape.numel(); ++flat) {
    std::int64_t rest = flat;
    for (int d = shape.size() - 1; d >= 0; --d) {
      index[d] = rest % shape[d];
      rest /= shape[d];
    }
    f(static_cast<const Shape&>(index));
  }
}

/// The array with `f(index)` at every index.
template <typename F>
Array make(const Shape& shape, F&& f) {
  Array out(shape);
  for_each_index(shape, [&](const Shape& index) { out.at(index) = f(index); });
  return out;
}

/// The same with one coordinate replaced.
inline Shape with(Shape index, int dim, std::int64_t value) {
  index[dim] = value;
  return index;
}

using Inputs = std::span<const Variable>;

struct OpCase {
  std::string op;       // as ops.h declares it
  std::string variant;  // what this entry is about
  std::vector<Shape> shapes;
  std::function<Variable(Inputs)> run;
  std::function<Array(const Arrays&)> reference;
  double low = -1, high = 1;  // of the inputs
  bool f64 = true;            // layers compute in f32 and bf16 only
  bool f32_weights = false;   // in bf16, only the first input is bf16
};

inline void PrintTo(const OpCase& op, std::ostream* out) { *out << op.op << ' ' << op.variant; }

using Table = std::vector<OpCase>;

void add_arithmetic_cases(Table& table);
void add_view_cases(Table& table);
void add_reduction_cases(Table& table);
void add_layer_cases(Table& table);
void add_loss_cases(Table& table);

/// All of them.
const Table& op_table();

}  // namespace millrace::test
