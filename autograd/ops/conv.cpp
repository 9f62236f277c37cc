#include "tensor/kernels/conv.h"

#include "autograd/ops/support.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/reduce.h"
#include "tensor/ops/operand.h"

namespace millrace {

namespace {

void check_weight(const Shape& x, const Variable& weight, const Variable& bias,
                  const Conv2dOptions& options) {
  if (weight.dim() != 4 || weight.dtype() != DType::f32) {
    throw InputError("conv2d: expected an f32 weight [O, I / groups, h, w], got {} {}", weight.dtype(),
                     weight.shape());
  }
  if (options.groups < 1 || x[1] % options.groups != 0 || weight.size(0) % options.groups != 0) {
    throw InputError("conv2d: groups = {} does not divide the channels of input {} and weight {}",
                     options.groups, x, weight.shape());
  }
  if (x[1] != weight.size(1) * options.groups) {
    throw InputError("conv2d: input {} has {} channels, weight {} expects {}", x, x[1], weight.shape(),
                     weight.size(1) * options.groups);
  }
  if (options.kernel != Size2(0) && options.kernel != Size2(weight.size(2), weight.size(3))) {
    throw InputError("conv2d: got options for a kernel of {} and weight {}; leave the kernel's size out",
                     to_string(options.kernel), weight.shape());
  }
  if (bias.defined() && !options.bias) {
    throw InputError("conv2d: got a bias {} and options without one; leave one of them out", bias.shape());
  }
  if (bias.defined() && (bias.shape() != Shape{weight.size(0)} || bias.dtype() != DType::f32)) {
    throw InputError("conv2d: got bias {} {}, expected f32 [{}] for weight {}", bias.dtype(), bias.shape(),
                     weight.size(0), weight.shape());
  }
}

Shape out_shape(const Shape& x, const Shape& weight, const Conv2dOptions& p) {
  const auto positive = [](Size2 size, std::int64_t least) {
    return size.height >= least && size.width >= least;
  };
  if (!positive(p.stride, 1) || !positive(p.dilation, 1) || !positive(p.padding, 0)) {
    throw InputError("conv2d: stride and dilation must be at least 1 and padding at least 0");
  }
  const std::int64_t window_height = (weight[2] - 1) * p.dilation.height + 1;
  const std::int64_t window_width = (weight[3] - 1) * p.dilation.width + 1;
  Shape out{x[0], weight[0], detail::window_count(x[2], window_height, p.stride.height, p.padding.height),
            detail::window_count(x[3], window_width, p.stride.width, p.padding.width)};
  if (out[2] < 1 || out[3] < 1) {
    throw InputError("conv2d: input {} with padding {} x {} is smaller than the window {} x {} of weight {}",
                     x, p.padding.height, p.padding.width, window_height, window_width, weight);
  }
  if (p.max_pool && (out[2] < 2 || out[3] < 2)) {
    throw InputError("conv2d: result {} is smaller than the 2 x 2 window of the max pooling behind it", out);
  }
  return out;
}

/// `whole` without those last rows and columns that the pooling leaves out, where only padding lies behind
/// them. (cuDNN's engines like padding to be the same on both sides.)
Shape pooled_part(Shape whole, const Shape& x, const Shape& weight, const Conv2dOptions& p) {
  const auto used = [](std::int64_t count, std::int64_t size, std::int64_t window, std::int64_t dilation,
                       std::int64_t stride, std::int64_t padding) {
    const std::int64_t even = count - count % 2;
    return (even - 1) * stride + (window - 1) * dilation + 1 >= size + padding ? even : count;
  };
  whole[2] = used(whole[2], x[2], weight[2], p.dilation.height, p.stride.height, p.padding.height);
  whole[3] = used(whole[3], x[3], weight[3], p.dilation.width, p.stride.width, p.padding.width);
  return whole;
}

/// A gradient of a weight or bias: a row-major f32 place, so that the kernel can write it as it is kept.
Tensor row_major_destination(const InputGradients& inputs, int i, const Shape& shape,
                             const Tensor& gradient) {
  Tensor destination = inputs.needed(i) ? inputs.destination(i) : Tensor();
  const bool fits = destination.defined() && destination.is_contiguous();
  return fits ? destination : empty(shape, {.dtype = DType::f32, .device = gradient.device()});
}

/// Those of weight [kernel] and bias; `index` is of the winners of a pooling in the same pass.
void add_parameter_gradients(const SavedTensor& x, const Tensor& grad, const Shape& kernel,
                             const Conv2dOptions& options, const Tensor& index, InputGradients& inputs) {
  Tensor grad_bias = inputs.needed(2) ? row_major_destination(inputs, 2, {kernel[0]}, grad) : Tensor();
  if (inputs.needed(1)) {
    Tensor grad_weight = row_major_destination(inputs, 1, kernel, grad);
    if (index.defined()) {
      MILLRACE_LAUNCH_ON_CPU(conv2d_max_pool2d_backward_weight, x.get("conv2d"), grad, index, options,
                             grad_weight, grad_bias);
    } else {
      MILLRACE_LAUNCH(grad.device(), conv2d_backward_weight, x.get("conv2d"), grad, options, grad_weight,
                      grad_bias);
    }
    inputs.add(1, std::move(grad_weight));
  } else if (inputs.needed(2)) {
    Tensor sums = grad_bias.view({1, kernel[0], 1, 1});
    MILLRACE_LAUNCH(grad.device(), reduce, ReduceOp::sum, grad, sums);
  }
  if (inputs.needed(2)) {
    inputs.add(2, std::move(grad_bias));
  }
}

/// The convolution, of which `shape` is computed, or with `pools` that and the pooling behind it in one pass.
Variable convolve(const Tensor& input, const Variable& x, const Variable& weight, const Variable& bias,
                  const Conv2dOptions& options, const Shape& shape, bool pools = false) {
  const Tensor kernel = weight.data().contiguous();
  Tensor out = detail::empty_image(shape, input);
  Tensor index;  // of the pooling's winners
  if (pools) {
    index = empty(shape, {.dtype = DType::u8, .format = MemoryFormat::channels_last});
    MILLRACE_LAUNCH_ON_CPU(conv2d_max_pool2d_forward, input, kernel, detail::dense_value(bias), options, out,
                           index);
  } else {
    MILLRACE_LAUNCH(x.device(), conv2d_forward, input, kernel, detail::dense_value(bias), options, out);
  }
  const double operations = detail::operations_with(weight, (pools ? 4 : 1) * out.numel());
  return record({pools ? "conv2d_max_pool2d" : "conv2d", operations}, std::move(out), {x, weight, bias},
                [&](const Tensor&) {
                  const bool needs_input = weight.requires_grad();
                  return [options, index, x = needs_input ? SavedTensor(input) : SavedTensor(),
                          weight = SavedTensor(kernel),
                          shape = x.shape()](const Tensor& gradient, InputGradients& inputs) {
                    const Tensor grad = gradient.contiguous(MemoryFormat::channels_last);
                    const Tensor& kernel = weight.get("conv2d");
                    if (inputs.needed(0)) {
                      Tensor grad_x = detail::image_destination(inputs, 0, shape, grad);
                      if (index.defined()) {
                        MILLRACE_LAUNCH_ON_CPU(conv2d_max_pool2d_backward_data, grad, index, kernel, options,
                                               grad_x);
                      } else {
                        MILLRACE_LAUNCH(grad.device(), conv2d_backward_data, grad, kernel, options, grad_x);
                      }
                      inputs.add(0, std::move(grad_x));
                    }
                    add_parameter_gradients(x, grad, kernel.shape(), options, index, inputs);
                  };
                });
}

}  // namespace

Variable conv2d(const Variable& x, const Variable& weight, const Conv2dOptions& options) {
  return conv2d(x, weight, Variable(), options);
}

Variable conv2d(const Variable& x, const Variable& weight, const Variable& bias,
                const Conv2dOptions& options) {
  const Tensor input = detail::image_input(x, "conv2d");
  check_weight(x.shape(), weight, bias, options);
  check_operands("conv2d", {&input, &weight.data(), bias.defined() ? &bias.data() : &input});
  const Shape whole = out_shape(x.shape(), weight.shape(), options);
  if (!options.max_pool) {
    return convolve(input, x, weight, bias, options, whole);
  }
  if (!x.device().is_cpu()) {
    return max_pool2d(convolve(input, x, weight, bias, options, whole), {.kernel = 2});
  }
  const Shape pooled{whole[0], whole[1], whole[2] / 2, whole[3] / 2};
  if (cpu::conv2d_pools(x.dtype(), x.shape(), weight.shape(), bias.defined(), options, pooled)) {
    return convolve(input, x, weight, bias, options, pooled, true);
  }
  const Shape read = pooled_part(whole, x.shape(), weight.shape(), options);
  return max_pool2d(convolve(input, x, weight, bias, options, read), {.kernel = 2});
}

}  // namespace millrace
