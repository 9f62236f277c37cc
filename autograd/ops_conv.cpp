#include "autograd/support.h"

namespace millrace {

namespace {

void check_weight(const Shape& x, const Variable& weight, const Variable& bias, const Conv2dParams& params) {
  if (weight.dim() != 4 || weight.dtype() != DType::f32) {
    throw InputError("conv2d: expected an f32 weight [O, I / groups, h, w], got {} {}", weight.dtype(),
                     weight.shape());
  }
  if (params.groups < 1 || x[1] % params.groups != 0 || weight.size(0) % params.groups != 0) {
    throw InputError("conv2d: groups = {} does not divide the channels of input {} and weight {}",
                     params.groups, x, weight.shape());
  }
  if (x[1] != weight.size(1) * params.groups) {
    throw InputError("conv2d: input {} has {} channels, weight {} expects {}", x, x[1], weight.shape(),
                     weight.size(1) * params.groups);
  }
  if (bias.defined() && (bias.shape() != Shape{weight.size(0)} || bias.dtype() != DType::f32)) {
    throw InputError("conv2d: got bias {} {}, expected f32 [{}] for weight {}", bias.dtype(), bias.shape(),
                     weight.size(0), weight.shape());
  }
}

/// Of `count` windows along one axis those that a pooling behind reads, where it is padding that the others
/// reach into. On the CPU: cuDNN's engines like padding to be the same on both sides.
std::int64_t used_windows(std::int64_t count, std::int64_t size, std::int64_t window, std::int64_t stride,
                          std::int64_t padding, std::int64_t pooled_by, Device device) {
  const std::int64_t used = count - count % pooled_by;
  return device.is_cpu() && used > 0 && (used - 1) * stride + window >= size + padding ? used : count;
}

Shape out_shape(const Shape& x, const Shape& weight, const Conv2dParams& p, Device device) {
  const auto positive = [](Size2 size, std::int64_t least) {
    return size.height >= least && size.width >= least;
  };
  if (!positive(p.stride, 1) || !positive(p.dilation, 1) || !positive(p.padding, 0) ||
      !positive(p.pooled_by, 1)) {
    throw InputError("conv2d: stride, dilation and pooled_by must be at least 1 and padding at least 0");
  }
  const std::int64_t window_height = (weight[2] - 1) * p.dilation.height + 1;
  const std::int64_t window_width = (weight[3] - 1) * p.dilation.width + 1;
  Shape out{x[0], weight[0], detail::window_count(x[2], window_height, p.stride.height, p.padding.height),
            detail::window_count(x[3], window_width, p.stride.width, p.padding.width)};
  if (out[2] < 1 || out[3] < 1) {
    throw InputError("conv2d: input {} with padding {} x {} is smaller than the window {} x {} of weight {}",
                     x, p.padding.height, p.padding.width, window_height, window_width, weight);
  }
  out[2] = used_windows(out[2], x[2], window_height, p.stride.height, p.padding.height, p.pooled_by.height,
                        device);
  out[3] =
      used_windows(out[3], x[3], window_width, p.stride.width, p.padding.width, p.pooled_by.width, device);
  return out;
}

/// A gradient of a weight or bias: a row-major f32 place, so that the kernel can write it as it is kept.
Tensor row_major_destination(const InputGradients& inputs, int i, const Shape& shape,
                             const Tensor& gradient) {
  Tensor destination = inputs.needed(i) ? inputs.destination(i) : Tensor();
  const bool fits = destination.defined() && destination.is_contiguous();
  return fits ? destination : empty(shape, {.dtype = DType::f32, .device = gradient.device()});
}

}  // namespace

Variable conv2d(const Variable& x, const Variable& weight, const Conv2dParams& params) {
  return conv2d(x, weight, Variable(), params);
}

Variable conv2d(const Variable& x, const Variable& weight, const Variable& bias, const Conv2dParams& params) {
  const Tensor input = detail::image_input(x, "conv2d");
  check_weight(x.shape(), weight, bias, params);
  const Tensor kernel = weight.data().contiguous();
  Tensor out = detail::empty_image(out_shape(x.shape(), weight.shape(), params, x.device()), input);
  MILLRACE_LAUNCH(x.device(), conv2d_forward, input, kernel, detail::dense_value(bias), params, out);
  return record("conv2d", std::move(out), {x, weight, bias}, [&](const Tensor&) {
    const bool needs_input = weight.requires_grad();
    return [params, x = needs_input ? SavedTensor(input) : SavedTensor(), weight = SavedTensor(kernel),
            shape = x.shape()](const Tensor& gradient, InputGradients& inputs) {
      const Tensor grad = gradient.contiguous(MemoryFormat::channels_last);
      const Tensor& kernel = weight.get("conv2d");
      if (inputs.needed(0)) {
        Tensor grad_x = detail::image_destination(inputs, 0, shape, grad);
        MILLRACE_LAUNCH(grad.device(), conv2d_backward_data, grad, kernel, params, grad_x);
        inputs.add(0, std::move(grad_x));
      }
      if (inputs.needed(1)) {
        Tensor grad_weight = row_major_destination(inputs, 1, kernel.shape(), grad);
        Tensor grad_bias =
            inputs.needed(2) ? row_major_destination(inputs, 2, {kernel.size(0)}, grad) : Tensor();
        MILLRACE_LAUNCH(grad.device(), conv2d_backward_weight, x.get("conv2d"), grad, params, grad_weight,
                        grad_bias);
        inputs.add(1, std::move(grad_weight));
        if (inputs.needed(2)) {
          inputs.add(2, std::move(grad_bias));
        }
      } else if (inputs.needed(2)) {
        Tensor grad_bias = row_major_destination(inputs, 2, {kernel.size(0)}, grad);
        Tensor sums = grad_bias.view({1, kernel.size(0), 1, 1});
        MILLRACE_LAUNCH(grad.device(), reduce, ReduceOp::sum, grad, sums);
        inputs.add(2, std::move(grad_bias));
      }
    };
  });
}

}  // namespace millrace
