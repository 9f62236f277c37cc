#include "table.h"

namespace millrace::test {

namespace {

/// An entry for an operation that only moves elements: result index -> input index.
void add_move(Table& table, const std::string& op, const std::string& variant, const Shape& shape,
              const Shape& out, const std::function<Variable(const Variable&)>& run,
              const std::function<Shape(const Shape&)>& from) {
  table.push_back({.op = op,
                   .variant = variant,
                   .shapes = {shape},
                   .run = [run](Inputs x) { return run(x[0]); },
                   .reference =
                       [out, from](const Arrays& x) {
                         return make(out, [&](const Shape& i) { return x[0].at(from(i)); });
                       }});
}

/// The same for one that keeps the elements in their row-major order.
void add_reshape(Table& table, const std::string& op, const std::string& variant, const Shape& shape,
                 const Shape& out, const std::function<Variable(const Variable&)>& run) {
  table.push_back({.op = op,
                   .variant = variant,
                   .shapes = {shape},
                   .run = [run](Inputs x) { return run(x[0]); },
                   .reference =
                       [out](const Arrays& x) {
                         Array result(out);
                         result.values = x[0].values;
                         return result;
                       }});
}

using V = const Variable&;

void add_reshape_cases(Table& table) {
  add_reshape(table, "view", "split", {2, 6}, {2, 2, 3}, [](V x) { return view(contiguous(x), {2, -1, 3}); });
  add_reshape(table, "reshape", "matrix", {4, 3}, {2, 6}, [](V x) { return reshape(x, {2, 6}); });
  add_reshape(table, "reshape", "image", {2, 3, 2, 2}, {2, 12}, [](V x) { return reshape(x, {2, -1}); });
  add_reshape(table, "flatten", "image", {2, 5, 3, 2}, {2, 30}, [](V x) { return flatten(x); });
  add_reshape(table, "flatten", "pixel", {3, 5, 1, 1}, {3, 5}, [](V x) { return flatten(x); });
  add_reshape(table, "flatten", "all", {2, 3, 2}, {12}, [](V x) { return flatten(x, 0); });
  add_reshape(table, "flatten", "scalar", {}, {1}, [](V x) { return flatten(x, 0); });
  add_reshape(table, "unsqueeze", "front", {3, 2}, {1, 3, 2}, [](V x) { return unsqueeze(x, 0); });
  add_reshape(table, "unsqueeze", "back", {3, 2}, {3, 2, 1}, [](V x) { return unsqueeze(x, -1); });
  add_reshape(table, "squeeze", "all", {1, 3, 1, 2}, {3, 2}, [](V x) { return squeeze(x); });
  add_reshape(table, "squeeze", "one", {1, 3, 1, 2}, {1, 3, 2}, [](V x) { return squeeze(x, 2); });
  add_reshape(table, "contiguous", "rows", {2, 3, 2, 4}, {2, 3, 2, 4}, [](V x) { return contiguous(x); });
  add_reshape(table, "contiguous", "channels_last", {2, 3, 2, 4}, {2, 3, 2, 4},
              [](V x) { return contiguous(x, MemoryFormat::channels_last); });
  add_reshape(table, "to", "f32", {3, 5}, {3, 5}, [](V x) { return to(x, DType::f32); });
  add_reshape(table, "to", "f64", {3, 5}, {3, 5}, [](V x) { return to(x, DType::f64); });
}

void add_view_of_part_cases(Table& table) {
  add_move(
      table, "slice", "step", {3, 7}, {3, 3}, [](V x) { return slice(x, 1, 1, 7, 2); },
      [](const Shape& i) {
        return Shape{i[0], 1 + 2 * i[1]};
      });
  add_move(
      table, "slice", "negative", {4, 3}, {2, 3}, [](V x) { return slice(x, 0, -3, -1); },
      [](const Shape& i) {
        return Shape{i[0] + 1, i[1]};
      });
  add_move(
      table, "slice", "image", {2, 3, 4, 5}, {2, 3, 2, 5}, [](V x) { return slice(x, 2, 1, 3); },
      [](const Shape& i) {
        return Shape{i[0], i[1], i[2] + 1, i[3]};
      });
  add_move(
      table, "narrow", "rows", {5, 2}, {2, 2}, [](V x) { return narrow(x, 0, 2, 2); },
      [](const Shape& i) {
        return Shape{i[0] + 2, i[1]};
      });
  add_move(
      table, "narrow", "channels", {2, 5, 2, 3}, {2, 3, 2, 3}, [](V x) { return narrow(x, 1, 1, 3); },
      [](const Shape& i) {
        return Shape{i[0], i[1] + 1, i[2], i[3]};
      });
  add_move(
      table, "select", "row", {4, 3}, {3}, [](V x) { return select(x, 0, 2); },
      [](const Shape& i) {
        return Shape{2, i[0]};
      });
  add_move(
      table, "select", "last", {4, 3}, {4}, [](V x) { return select(x, 1, -1); },
      [](const Shape& i) {
        return Shape{i[0], 2};
      });
}

void add_reordering_cases(Table& table) {
  add_move(
      table, "permute", "image", {2, 3, 4, 5}, {2, 4, 5, 3},
      [](V x) {
        return permute(x, {0, 2, 3, 1});
      },
      [](const Shape& i) {
        return Shape{i[0], i[3], i[1], i[2]};
      });
  add_move(
      table, "permute", "negative", {2, 3, 4}, {4, 2, 3},
      [](V x) {
        return permute(x, {-1, 0, 1});
      },
      [](const Shape& i) {
        return Shape{i[1], i[2], i[0]};
      });
  add_move(
      table, "transpose", "outer", {2, 3, 4}, {4, 3, 2}, [](V x) { return transpose(x, 0, -1); },
      [](const Shape& i) {
        return Shape{i[2], i[1], i[0]};
      });
  add_move(
      table, "t", "matrix", {2, 3}, {3, 2}, [](V x) { return t(x); },
      [](const Shape& i) {
        return Shape{i[1], i[0]};
      });
  add_move(
      table, "expand", "rows", {1, 3}, {4, 3},
      [](V x) {
        return expand(x, {4, 3});
      },
      [](const Shape& i) {
        return Shape{0, i[1]};
      });
  add_move(
      table, "expand", "new_dimension", {3, 1}, {2, 3, 2},
      [](V x) {
        return expand(x, {2, 3, 2});
      },
      [](const Shape& i) {
        return Shape{i[1], 0};
      });
}

const Tensor& choice() {
  static const Tensor index = tensor({2, 0, 2, 3}, {.dtype = DType::i64});
  return index;
}

const Tensor& table_of_choices() {
  static const Tensor index = tensor({{1, 0, 1}, {2, 2, 2}}, {.dtype = DType::i64});
  return index;
}

void add_selection_cases(Table& table) {
  add_move(
      table, "index_select", "rows", {4, 3}, {4, 3},
      [](V x) { return index_select(x, 0, choice().to(x.device())); },
      [](const Shape& i) {
        return Shape{static_cast<std::int64_t>(choice().at({i[0]})), i[1]};
      });
  add_move(
      table, "index_select", "channels", {2, 4, 2, 3}, {2, 4, 2, 3},
      [](V x) { return index_select(x, 1, choice().to(x.device())); },
      [](const Shape& i) {
        return Shape{i[0], static_cast<std::int64_t>(choice().at({i[1]})), i[2], i[3]};
      });
  add_move(
      table, "gather", "rows", {3, 3}, {2, 3},
      [](V x) { return gather(x, 0, table_of_choices().to(x.device())); },
      [](const Shape& i) {
        return Shape{static_cast<std::int64_t>(table_of_choices().at({i[0], i[1]})), i[1]};
      });
  add_move(
      table, "gather", "columns", {2, 4}, {2, 3},
      [](V x) { return gather(x, -1, table_of_choices().to(x.device())); },
      [](const Shape& i) {
        return Shape{i[0], static_cast<std::int64_t>(table_of_choices().at({i[0], i[1]}))};
      });
}

/// The input that index `i` along `dim` of a joined tensor comes from; `i` becomes the index within it.
const Array& source_of(const Arrays& x, int dim, Shape& i) {
  std::size_t k = 0;
  while (i[dim] >= x[k].shape[dim]) {
    i[dim] -= x[k++].shape[dim];
  }
  return x[k];
}

void add_joining_cases(Table& table) {
  table.push_back({.op = "cat",
                   .variant = "rows",
                   .shapes = {{2, 3}, {1, 3}, {4, 3}, {1, 3}},
                   .run = [](Inputs x) { return cat(x); },
                   .reference =
                       [](const Arrays& x) {
                         return make({8, 3}, [&](Shape i) {
                           const Array& from = source_of(x, 0, i);
                           return from.at(i);
                         });
                       }});
  table.push_back({.op = "cat",
                   .variant = "channels",
                   .shapes = {{2, 3, 2, 2}, {2, 2, 2, 2}},
                   .run =
                       [](Inputs x) {
                         return cat({x[0], x[1]}, 1);
                       },
                   .reference =
                       [](const Arrays& x) {
                         return make({2, 5, 2, 2}, [&](Shape i) {
                           const Array& from = source_of(x, 1, i);
                           return from.at(i);
                         });
                       }});
  table.push_back({.op = "stack",
                   .variant = "front",
                   .shapes = {{2, 3}, {2, 3}, {2, 3}},
                   .run = [](Inputs x) { return stack(x); },
                   .reference =
                       [](const Arrays& x) {
                         return make({3, 2, 3}, [&](const Shape& i) {
                           return x[static_cast<std::size_t>(i[0])].at({i[1], i[2]});
                         });
                       }});
  table.push_back({.op = "stack",
                   .variant = "back",
                   .shapes = {{2, 3}, {2, 3}},
                   .run =
                       [](Inputs x) {
                         return stack({x[0], x[1]}, -1);
                       },
                   .reference =
                       [](const Arrays& x) {
                         return make({2, 3, 2}, [&](const Shape& i) {
                           return x[static_cast<std::size_t>(i[2])].at({i[0], i[1]});
                         });
                       }});
}

}  // namespace

void add_view_cases(Table& table) {
  add_reshape_cases(table);
  add_view_of_part_cases(table);
  add_reordering_cases(table);
  add_selection_cases(table);
  add_joining_cases(table);
}

}  // namespace millrace::test
