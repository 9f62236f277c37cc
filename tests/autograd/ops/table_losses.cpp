#include <cmath>

#include "table.h"

namespace millrace::test {

namespace {

Array log_softmax_along(const Array& x, int dim) {
  dim = wrap_dim(dim, x.shape.size(), "reference");
  return make(x.shape, [&](const Shape& i) {
    double sum = 0;
    for (std::int64_t k = 0; k < x.shape[dim]; ++k) {
      sum += std::exp(x.at(with(i, dim, k)));
    }
    return x.at(i) - std::log(sum);
  });
}

void add_softmax(Table& table, const std::string& variant, const Shape& shape, int dim) {
  table.push_back({.op = "softmax",
                   .variant = variant,
                   .shapes = {shape},
                   .run = [dim](Inputs x) { return softmax(x[0], dim); },
                   .reference =
                       [dim](const Arrays& x) {
                         Array out = log_softmax_along(x[0], dim);
                         for (double& value : out.values) {
                           value = std::exp(value);
                         }
                         return out;
                       },
                   .low = -3,
                   .high = 3});
  table.push_back({.op = "log_softmax",
                   .variant = variant,
                   .shapes = {shape},
                   .run = [dim](Inputs x) { return log_softmax(x[0], dim); },
                   .reference = [dim](const Arrays& x) { return log_softmax_along(x[0], dim); },
                   .low = -3,
                   .high = 3});
}

Array reduced(const Array& losses, Reduction reduction) {
  if (reduction == Reduction::none) {
    return losses;
  }
  Array out(Shape{});
  for (double loss : losses.values) {
    out.values[0] += loss;
  }
  if (reduction == Reduction::mean) {
    out.values[0] /= static_cast<double>(losses.values.size());
  }
  return out;
}

std::string name_of(Reduction reduction) {
  return reduction == Reduction::mean ? "_mean" : reduction == Reduction::sum ? "_sum" : "_none";
}

void add_cross_entropy(Table& table, const std::string& variant, const Shape& shape, bool soft,
                       const CrossEntropyOptions& options) {
  // Probabilities of each sample's classes; for labels all on one class.
  Array share(shape);
  Tensor target = soft ? empty(shape) : empty({shape[0]}, {.dtype = DType::i64});
  for (std::int64_t n = 0; n < shape[0]; ++n) {
    const std::int64_t label = (n * 7 + 3) % shape[1];
    if (!soft) {
      target.set({n}, static_cast<double>(label));
    }
    for (std::int64_t c = 0; c < shape[1]; ++c) {
      share.at({n, c}) = soft ? static_cast<double>((n + 2 * c) % 4) / 8 : (c == label ? 1 : 0);
      if (soft) {
        target.set({n, c}, share.at({n, c}));
      }
    }
  }
  const double smoothing = options.label_smoothing;
  table.push_back({.op = "cross_entropy",
                   .variant = variant + name_of(options.reduction),
                   .shapes = {shape},
                   .run = [=](Inputs x) { return cross_entropy(x[0], target.to(x[0].device()), options); },
                   .reference =
                       [=](const Arrays& x) {
                         const Array log_probability = log_softmax_along(x[0], 1);
                         const Array losses = make({shape[0]}, [&](const Shape& i) {
                           double loss = 0;
                           for (std::int64_t c = 0; c < shape[1]; ++c) {
                             const double weight = share.at({i[0], c}) * (1 - smoothing) +
                                                   smoothing / static_cast<double>(shape[1]);
                             loss -= weight * log_probability.at({i[0], c});
                           }
                           return loss;
                         });
                         return reduced(losses, options.reduction);
                       },
                   .low = -3,
                   .high = 3});
}

void add_mse(Table& table, const Shape& shape, Reduction reduction) {
  table.push_back({.op = "mse_loss",
                   .variant = "pair" + name_of(reduction),
                   .shapes = {shape, shape},
                   .run = [reduction](Inputs x) { return mse_loss(x[0], x[1], {.reduction = reduction}); },
                   .reference =
                       [=](const Arrays& x) {
                         return reduced(make(shape,
                                             [&](const Shape& i) {
                                               const double difference = x[0].at(i) - x[1].at(i);
                                               return difference * difference;
                                             }),
                                        reduction);
                       }});
}

}  // namespace

void add_loss_cases(Table& table) {
  add_softmax(table, "rows", {3, 7}, 1);
  add_softmax(table, "columns", {5, 2}, 0);
  add_softmax(table, "channels", {2, 3, 2, 2}, 1);
  add_softmax(table, "one", {1, 1}, -1);
  for (Reduction reduction : {Reduction::mean, Reduction::sum, Reduction::none}) {
    add_cross_entropy(table, "labels", {5, 3}, false, {.reduction = reduction});
    add_cross_entropy(table, "smoothed", {3, 10}, false, {.label_smoothing = 0.2, .reduction = reduction});
    add_cross_entropy(table, "soft", {4, 3}, true, {.reduction = reduction});
    add_mse(table, {3, 5}, reduction);
  }
  add_cross_entropy(table, "soft_smoothed", {2, 5}, true, {.label_smoothing = 0.1});
  add_cross_entropy(table, "one", {1, 2}, false, {});
}

}  // namespace millrace::test
