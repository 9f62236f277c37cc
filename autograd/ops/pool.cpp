#include "tensor/kernels/pool.h"

#include <algorithm>

#include "autograd/ops/support.h"
#include "tensor/kernels/launch.h"

namespace millrace {

namespace {

void check_pool(const Shape& x, const Pool2dOptions& options, std::string_view name) {
  const Size2 stride = options.step();
  const auto side_is_valid = [](std::int64_t kernel, std::int64_t step, std::int64_t padding) {
    return kernel >= 1 && step >= 1 && padding >= 0 && 2 * padding <= kernel;
  };
  if (!side_is_valid(options.kernel.height, stride.height, options.padding.height) ||
      !side_is_valid(options.kernel.width, stride.width, options.padding.width)) {
    throw InputError(
        "{}: got kernel {} x {}, stride {} x {}, padding {} x {}; expected at least 1, at least 1, and at "
        "most half the kernel",
        name, options.kernel.height, options.kernel.width, stride.height, stride.width,
        options.padding.height, options.padding.width);
  }
  if (x[2] < 1 || x[3] < 1) {
    throw InputError("{}: input {} has no pixels", name, x);
  }
  if (x[2] + 2 * options.padding.height < options.kernel.height ||
      x[3] + 2 * options.padding.width < options.kernel.width) {
    throw InputError("{}: input {} is smaller than the kernel {} x {}", name, x, options.kernel.height,
                     options.kernel.width);
  }
}

Shape pooled_shape(const Shape& x, const Pool2dOptions& p) {
  return {x[0], x[1], detail::window_count(x[2], p.kernel.height, p.step().height, p.padding.height),
          detail::window_count(x[3], p.kernel.width, p.step().width, p.padding.width)};
}

Shape adaptive_shape(const Shape& x, Size2 output, std::string_view name) {
  if (output.height < 1 || output.width < 1 || x[2] < 1 || x[3] < 1) {
    throw InputError("{}: cannot pool input {} to {} x {}", name, x, output.height, output.width);
  }
  return {x[0], x[1], output.height, output.width};
}

/// The most places a window has along one side.
std::int64_t longest_window(std::int64_t size, std::int64_t output) {
  std::int64_t longest = 0;
  for (std::int64_t i = 0; i < output; ++i) {
    longest = std::max(longest, ((i + 1) * size + output - 1) / output - i * size / output);
  }
  return longest;
}

Variable pool_max(std::string_view name, const Variable& x, const Tensor& input, const Pool2dOptions& options,
                  const Shape& out_shape) {
  const std::int64_t places = options.is_adaptive() ? longest_window(input.size(2), out_shape[2]) *
                                                          longest_window(input.size(3), out_shape[3])
                                                    : options.kernel.height * options.kernel.width;
  Tensor out = detail::empty_image(out_shape, input);
  Tensor index = empty(out_shape, {.dtype = places <= 256 ? DType::u8 : DType::i32,
                                   .device = input.device(),
                                   .format = MemoryFormat::channels_last});
  MILLRACE_LAUNCH(input.device(), max_pool2d_forward, input, options, out, index);
  return record(name, std::move(out), {x}, [&](const Tensor&) {
    return [options, index, shape = x.shape()](const Tensor& gradient, InputGradients& inputs) {
      const Tensor grad = gradient.contiguous(MemoryFormat::channels_last);
      Tensor grad_x = detail::image_destination(inputs, 0, shape, grad);
      MILLRACE_LAUNCH(grad.device(), max_pool2d_backward, grad, index, options, grad_x);
      inputs.add(0, std::move(grad_x));
    };
  });
}

Variable pool_average(std::string_view name, const Variable& x, const Tensor& input,
                      const Pool2dOptions& options, const Shape& out_shape) {
  Tensor out = detail::empty_image(out_shape, input);
  MILLRACE_LAUNCH(input.device(), avg_pool2d_forward, input, options, out);
  return record(name, std::move(out), {x}, [&](const Tensor&) {
    return [options, shape = x.shape()](const Tensor& gradient, InputGradients& inputs) {
      const Tensor grad = gradient.contiguous(MemoryFormat::channels_last);
      Tensor grad_x = detail::image_destination(inputs, 0, shape, grad);
      MILLRACE_LAUNCH(grad.device(), avg_pool2d_backward, grad, options, grad_x);
      inputs.add(0, std::move(grad_x));
    };
  });
}

}  // namespace

Variable max_pool2d(const Variable& x, const Pool2dOptions& options) {
  const Tensor input = detail::image_input(x, "max_pool2d");
  check_pool(x.shape(), options, "max_pool2d");
  return pool_max("max_pool2d", x, input, options, pooled_shape(x.shape(), options));
}

Variable avg_pool2d(const Variable& x, const Pool2dOptions& options) {
  const Tensor input = detail::image_input(x, "avg_pool2d");
  check_pool(x.shape(), options, "avg_pool2d");
  return pool_average("avg_pool2d", x, input, options, pooled_shape(x.shape(), options));
}

Variable adaptive_max_pool2d(const Variable& x, Size2 output) {
  const Tensor input = detail::image_input(x, "adaptive_max_pool2d");
  const Shape shape = adaptive_shape(x.shape(), output, "adaptive_max_pool2d");
  return pool_max("adaptive_max_pool2d", x, input, {.kernel = 0}, shape);
}

Variable adaptive_avg_pool2d(const Variable& x, Size2 output) {
  const Tensor input = detail::image_input(x, "adaptive_avg_pool2d");
  const Shape shape = adaptive_shape(x.shape(), output, "adaptive_avg_pool2d");
  return pool_average("adaptive_avg_pool2d", x, input, {.kernel = 0}, shape);
}

}  // namespace millrace
