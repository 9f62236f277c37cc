#include <algorithm>

#include "table.h"

namespace millrace::test {

namespace {

using Elements = std::vector<double>;

/// Applies `f` to the elements that meet at each place of the result.
Array reduced(const Array& x, const ReduceOptions& options, const std::function<double(const Elements&)>& f) {
  std::vector<bool> gone(static_cast<std::size_t>(x.shape.size()), options.dims.empty());
  for (int dim : options.dims) {
    gone[static_cast<std::size_t>(wrap_dim(dim, x.shape.size(), "reference"))] = true;
  }
  Shape kept, shape;
  for (int d = 0; d < x.shape.size(); ++d) {
    const bool is_gone = gone[static_cast<std::size_t>(d)];
    kept.push_back(is_gone ? 1 : x.shape[d]);
    if (!is_gone || options.keep_dims) {
      shape.push_back(kept[d]);
    }
  }
  Array out(kept);
  for_each_index(kept, [&](const Shape& place) {
    Elements elements;
    for_each_index(x.shape, [&](const Shape& i) {
      bool meets = true;
      for (int d = 0; d < i.size(); ++d) {
        meets &= gone[static_cast<std::size_t>(d)] || i[d] == place[d];
      }
      if (meets) {
        elements.push_back(x.at(i));
      }
    });
    out.at(place) = f(elements);
  });
  out.shape = shape;
  return out;
}

double total(const Elements& x) {
  double sum = 0;
  for (double value : x) {
    sum += value;
  }
  return sum;
}

double variance(const Elements& x, int correction) {
  const double mean = total(x) / static_cast<double>(x.size());
  double squares = 0;
  for (double value : x) {
    squares += (value - mean) * (value - mean);
  }
  return squares / static_cast<double>(static_cast<std::int64_t>(x.size()) - correction);
}

void add_reduction(Table& table, const std::string& op,
                   const std::function<Variable(const Variable&, const ReduceOptions&)>& run,
                   const std::function<double(const Elements&)>& f, const std::string& suffix = "") {
  const std::vector<std::tuple<std::string, Shape, ReduceOptions>> variants = {
      {"all", {3, 5}, {}},
      {"rows", {3, 5}, {.dims = {0}}},
      {"columns", {3, 5}, {.dims = {-1}, .keep_dims = true}},
      {"pixels", {2, 3, 4, 2}, {.dims = {2, 3}}},
      {"channels", {2, 3, 4, 2}, {.dims = {0, -2, 3}, .keep_dims = true}},
      {"all_kept", {2, 3, 2, 2}, {.dims = {}, .keep_dims = true}},
  };
  for (const auto& [variant, shape, options] : variants) {
    table.push_back(
        {.op = op,
         .variant = variant + suffix,
         .shapes = {shape},
         .run = [run, options = options](Inputs x) { return run(x[0], options); },
         .reference = [f, options = options](const Arrays& x) { return reduced(x[0], options, f); }});
  }
}

}  // namespace

void add_reduction_cases(Table& table) {
  using V = const Variable&;
  using O = const ReduceOptions&;
  add_reduction(
      table, "sum", [](V x, O options) { return sum(x, options); }, total);
  add_reduction(
      table, "mean", [](V x, O options) { return mean(x, options); },
      [](const Elements& x) { return total(x) / static_cast<double>(x.size()); });
  add_reduction(
      table, "max", [](V x, O options) { return max(x, options); },
      [](const Elements& x) { return *std::ranges::max_element(x); });
  add_reduction(
      table, "min", [](V x, O options) { return min(x, options); },
      [](const Elements& x) { return *std::ranges::min_element(x); });
  add_reduction(
      table, "var", [](V x, O options) { return var(x, options); },
      [](const Elements& x) { return variance(x, 1); });
  add_reduction(
      table, "var", [](V x, O options) { return var(x, options, 0); },
      [](const Elements& x) { return variance(x, 0); }, "_biased");
}

}  // namespace millrace::test
