#include <array>

#include "autograd/ops/support.h"

namespace millrace {

namespace {

/// A result with x's elements in another shape, in the same logical order.
Variable reshaped(std::string_view name, Tensor value, const Variable& x) {
  return record(name, std::move(value), {x}, [&](const Tensor&) {
    return [shape = x.shape()](const Tensor& gradient, InputGradients& inputs) {
      inputs.add(0, gradient.reshape(shape));
    };
  });
}

/// A result that shows a part of x; `part` cuts the same part out of a tensor of x's shape.
template <typename Part>
Variable partial(std::string_view name, const Variable& x, Part part) {
  return record(name, part(x.data()), {x}, [&](const Tensor&) {
    return [part](const Tensor& gradient, InputGradients& inputs) {
      Tensor grad_x = inputs.destination(0);
      grad_x.zero_();
      part(grad_x).copy_(gradient);
      inputs.add(0, std::move(grad_x));
    };
  });
}

}  // namespace

Variable view(const Variable& x, const Shape& shape) { return reshaped("view", x.data().view(shape), x); }

Variable reshape(const Variable& x, const Shape& shape) {
  return reshaped("reshape", x.data().reshape(shape), x);
}

Variable flatten(const Variable& x, int start_dim) {
  const Shape& shape = x.shape();
  const int start = shape.empty() ? 0 : wrap_dim(start_dim, shape.size(), "flatten");
  Shape flat(std::span(shape.begin(), static_cast<std::size_t>(start)));
  std::int64_t rest = 1;
  for (int i = start; i < shape.size(); ++i) {
    rest *= shape[i];
  }
  flat.push_back(rest);
  const bool channels_last = x.dim() == 4 && !x.data().is_contiguous();
  return record("flatten", x.data().reshape(flat), {x}, [&](const Tensor&) {
    return [shape, channels_last](const Tensor& gradient, InputGradients& inputs) {
      // The layers before work on channels-last images, so the order is restored here, in one copy.
      Tensor grad_x = gradient.reshape(shape);
      inputs.add(0, channels_last ? grad_x.contiguous(MemoryFormat::channels_last) : grad_x);
    };
  });
}

Variable permute(const Variable& x, std::initializer_list<int> dims) {
  Tensor value = x.data().permute(dims);
  return record("permute", std::move(value), {x}, [&](const Tensor&) {
    std::array<int, kMaxDims> inverse{};
    int i = 0;
    for (int dim : dims) {
      inverse[static_cast<std::size_t>(wrap_dim(dim, x.dim(), "permute"))] = i++;
    }
    return [inverse, count = x.dim()](const Tensor& gradient, InputGradients& inputs) {
      inputs.add(0, gradient.permute(std::span(inverse).first(static_cast<std::size_t>(count))));
    };
  });
}

namespace {

Variable transposed(std::string_view name, const Variable& x, int a, int b) {
  return record(name, x.data().transpose(a, b), {x}, [&](const Tensor&) {
    return
        [a, b](const Tensor& gradient, InputGradients& inputs) { inputs.add(0, gradient.transpose(a, b)); };
  });
}

}  // namespace

Variable transpose(const Variable& x, int a, int b) { return transposed("transpose", x, a, b); }

Variable t(const Variable& x) {
  if (x.dim() != 2) {
    throw InputError("t: expected 2 dimensions, got {}", x.shape());
  }
  return transposed("t", x, 0, 1);
}

Variable slice(const Variable& x, int dim, std::int64_t start, std::int64_t end, std::int64_t step) {
  return partial("slice", x, [=](const Tensor& tensor) { return tensor.slice(dim, start, end, step); });
}

Variable narrow(const Variable& x, int dim, std::int64_t start, std::int64_t length) {
  return partial("narrow", x, [=](const Tensor& tensor) { return tensor.narrow(dim, start, length); });
}

Variable select(const Variable& x, int dim, std::int64_t index) {
  return partial("select", x, [=](const Tensor& tensor) { return tensor.select(dim, index); });
}

Variable unsqueeze(const Variable& x, int dim) { return reshaped("unsqueeze", x.data().unsqueeze(dim), x); }
Variable squeeze(const Variable& x) { return reshaped("squeeze", x.data().squeeze(), x); }
Variable squeeze(const Variable& x, int dim) { return reshaped("squeeze", x.data().squeeze(dim), x); }

Variable expand(const Variable& x, const Shape& shape) {
  return record("expand", x.data().expand(shape), {x}, [&](const Tensor&) {
    return [shape = x.shape()](const Tensor& gradient, InputGradients& inputs) {
      inputs.add(0, sum_to(gradient, shape));
    };
  });
}

Variable contiguous(const Variable& x, MemoryFormat format) {
  return record("contiguous", x.data().contiguous(format), {x}, [&](const Tensor&) {
    return [](const Tensor& gradient, InputGradients& inputs) { inputs.add(0, gradient); };
  });
}

Variable to(const Variable& x, DType dtype) {
  if (dtype == x.dtype()) {
    return x;
  }
  if (!is_floating(dtype)) {
    return Variable(x.data().to(dtype));
  }  // an integer has no gradient to pass on
  return record("to", x.data().to(dtype), {x}, [&](const Tensor&) {
    return [](const Tensor& gradient, InputGradients& inputs) { inputs.add(0, gradient); };
  });
}

}  // namespace millrace
