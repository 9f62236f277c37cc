#include "autograd/ops/support.h"

namespace millrace {

Variable index_select(const Variable& x, int dim, const Tensor& index) {
  return record("index_select", index_select(x.data(), dim, index), {x}, [&](const Tensor&) {
    return [dim = wrap_dim(dim, x.dim(), "index_select"), index = SavedTensor(index)](
               const Tensor& gradient, InputGradients& inputs) {
      Shape row(std::span(gradient.shape().begin(), 0));
      for (int i = 0; i < gradient.dim(); ++i) {
        row.push_back(i == dim ? gradient.size(dim) : 1);
      }
      Tensor grad_x = inputs.destination(0);
      grad_x.zero_();
      scatter_add_(grad_x, dim, index.get("index_select").reshape(row).expand(gradient.shape()), gradient);
      inputs.add(0, std::move(grad_x));
    };
  });
}

Variable gather(const Variable& x, int dim, const Tensor& index) {
  return record("gather", gather(x.data(), dim, index), {x}, [&](const Tensor&) {
    return [dim, index = SavedTensor(index)](const Tensor& gradient, InputGradients& inputs) {
      Tensor grad_x = inputs.destination(0);
      grad_x.zero_();
      scatter_add_(grad_x, dim, index.get("gather"), gradient);
      inputs.add(0, std::move(grad_x));
    };
  });
}

namespace {

std::vector<Tensor> values_of(std::span<const Variable> variables) {
  std::vector<Tensor> values;
  values.reserve(variables.size());
  for (const Variable& variable : variables) {
    values.push_back(variable.data());
  }
  return values;
}

}  // namespace

Variable cat(std::span<const Variable> variables, int dim) {
  const std::vector<Tensor> values = values_of(variables);
  return record("cat", cat(std::span(values), dim), variables, [&](const Tensor& out) {
    dim = wrap_dim(dim, out.dim(), "cat");
    std::vector<std::int64_t> lengths;
    for (const Tensor& value : values) {
      lengths.push_back(value.size(dim));
    }
    return [dim, lengths = std::move(lengths)](const Tensor& gradient, InputGradients& inputs) {
      std::int64_t start = 0;
      for (int i = 0; i < static_cast<int>(lengths.size()); ++i) {
        const std::int64_t length = lengths[static_cast<std::size_t>(i)];
        if (inputs.needed(i)) {
          inputs.add(i, gradient.narrow(dim, start, length));
        }
        start += length;
      }
    };
  });
}

Variable stack(std::span<const Variable> variables, int dim) {
  const std::vector<Tensor> values = values_of(variables);
  return record("stack", stack(std::span(values), dim), variables, [&](const Tensor& out) {
    return [dim = wrap_dim(dim, out.dim(), "stack"), count = static_cast<int>(values.size())](
               const Tensor& gradient, InputGradients& inputs) {
      for (int i = 0; i < count; ++i) {
        if (inputs.needed(i)) {
          inputs.add(i, gradient.select(dim, i));
        }
      }
    };
  });
}

}  // namespace millrace
