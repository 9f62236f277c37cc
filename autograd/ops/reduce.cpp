#include <algorithm>

#include "autograd/ops/support.h"

namespace millrace {

namespace {

/// The shape of a reduction of `shape` with the reduced dimensions kept; no dims means all.
Shape kept_shape(const Shape& shape, const std::vector<int>& dims, std::string_view operation) {
  Shape kept = shape;
  if (dims.empty()) {
    std::ranges::fill(kept, 1);
  }
  for (int dim : dims) {
    kept[wrap_dim(dim, shape.size(), operation)] = 1;
  }
  return kept;
}

/// How many elements meet in one.
std::int64_t count_of(const Shape& shape, const Shape& kept) {
  return kept.numel() == 0 ? 0 : shape.numel() / kept.numel();
}

Variable spread(std::string_view name, Tensor value, const Variable& x, const ReduceOptions& options,
                double factor) {
  return record(name, std::move(value), {x}, [&](const Tensor&) {
    return [shape = x.shape(), kept = kept_shape(x.shape(), options.dims, name), factor](
               const Tensor& gradient, InputGradients& inputs) {
      // Still few elements: scaled before, not after, they are spread.
      const Tensor scaled = factor == 1 ? gradient : gradient * factor;
      inputs.add(0, scaled.reshape(kept).expand(shape));
    };
  });
}

Variable extremum(std::string_view name, Tensor value, const Variable& x, const ReduceOptions& options) {
  return record(name, std::move(value), {x}, [&](const Tensor& out) {
    return [name, options, kept = kept_shape(x.shape(), options.dims, name), x = SavedTensor(x.data()),
            out = SavedTensor(out)](const Tensor& gradient, InputGradients& inputs) {
      const Tensor& input = x.get(name);
      const Tensor mask = equal(input, out.get(name).reshape(kept)).to(gradient.dtype());
      const Tensor share = gradient.reshape(kept) / sum(mask, {.dims = options.dims, .keep_dims = true});
      inputs.add(0, mask * share);
    };
  });
}

}  // namespace

Variable sum(const Variable& x, const ReduceOptions& options) {
  return spread("sum", sum(x.data(), options), x, options, 1);
}

Variable mean(const Variable& x, const ReduceOptions& options) {
  const std::int64_t count = count_of(x.shape(), kept_shape(x.shape(), options.dims, "mean"));
  return spread("mean", mean(x.data(), options), x, options, 1.0 / static_cast<double>(count));
}

Variable max(const Variable& x, const ReduceOptions& options) {
  return extremum("max", max(x.data(), options), x, options);
}

Variable min(const Variable& x, const ReduceOptions& options) {
  return extremum("min", min(x.data(), options), x, options);
}

Variable var(const Variable& x, const ReduceOptions& options, int correction) {
  return record("var", var(x.data(), options, correction), {x}, [&](const Tensor&) {
    return [correction, options, kept = kept_shape(x.shape(), options.dims, "var"),
            x = SavedTensor(x.data())](const Tensor& gradient, InputGradients& inputs) {
      const Tensor& input = x.get("var");
      const double divisor = static_cast<double>(count_of(input.shape(), kept) - correction);
      const Tensor centered = input - mean(input, {.dims = options.dims, .keep_dims = true});
      inputs.add(0, centered * (gradient.reshape(kept) * (2 / divisor)));
    };
  });
}

}  // namespace millrace
