#include "tensor/kernels/norm.h"

#include <array>

#include "autograd/ops/support.h"
#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/pool.h"
#include "tensor/kernels/random.h"
#include "tensor/kernels/recording.h"
#include "tensor/ops/operand.h"

namespace millrace {

namespace {

void check_vector(const Tensor& vector, std::string_view what, const Tensor& x) {
  if (!vector.defined()) {
    return;
  }
  check_operands("batch_norm", {&x, &vector});
  if (vector.shape() != Shape{x.size(1)} || vector.dtype() != DType::f32) {
    throw InputError("batch_norm: got {} {} {}, expected f32 [{}] for input {}", what, vector.dtype(),
                     vector.shape(), x.size(1), x.shape());
  }
}

void check_batch_norm(const Variable& x, const Variable& weight, const Variable& bias,
                      const BatchNormOptions& options) {
  if (x.dim() != 4 && x.dim() != 2) {
    throw InputError("batch_norm: expected an input [N, C, H, W] or [N, C], got {}", x.shape());
  }
  check_vector(detail::dense_value(weight), "weight", x.data());
  check_vector(detail::dense_value(bias), "bias", x.data());
  if (options.max_pool && (x.dim() != 4 || x.size(2) < 2 || x.size(3) < 2)) {
    throw InputError("batch_norm: max pooling of 2x2 windows needs images of 2x2 pixels or more, got {}",
                     x.shape());
  }
  if (options.training) {
    return;
  }
  if (!options.mean.defined() || !options.var.defined()) {
    throw InputError("batch_norm: without training, mean and var must be given");
  }
  check_vector(options.mean, "mean", x.data());
  check_vector(options.var, "var", x.data());
}

void check_residual(const Variable& x, const Variable& residual, Activation activation) {
  if (!residual.defined()) {
    return;
  }
  if (activation != Activation::relu) {
    throw InputError("batch_norm: a residual needs relu behind it; add it to the result instead");
  }
  check_operands("batch_norm", {&x.data(), &residual.data()});
  if (residual.shape() != x.shape() || residual.dtype() != x.dtype()) {
    throw InputError("batch_norm: got a residual {} {}, expected {} {} as the input", residual.dtype(),
                     residual.shape(), x.dtype(), x.shape());
  }
}

/// Where input i's gradient goes, in the order of `like`; over `gradient` where nobody else reads that.
Tensor destination_like(const Tensor& like, const InputGradients& inputs, int i, const Tensor& gradient) {
  Tensor destination = inputs.needed(i) ? inputs.destination(i, gradient) : Tensor();
  return destination.defined() && destination.strides() == like.strides() ? destination : empty_like(like);
}

UnaryOp operation_of(Activation activation) {
  return activation == Activation::relu ? UnaryOp::relu : UnaryOp::gelu;
}

/// Whether a kernel has the pooling too, without anything left over.
bool pools(const Variable& x, const BatchNormOptions& options, const Variable& residual) {
  return options.max_pool && x.device().is_cpu() && options.activation != Activation::none &&
         !residual.defined() && x.size(2) % 2 == 0 && x.size(3) % 2 == 0;
}

/// What the forward pass made and the backward pass needs.
struct Normalized {
  Tensor input, scale, shift, mean, var;
  Tensor out;
  Tensor index;  // of the pooling's winners, where that is part of the pass
};

/// All but the pooling, or `at_once` that too.
Normalized normalize(const Variable& x, const Variable& weight, const Variable& bias,
                     const BatchNormOptions& options, const Variable& residual, bool at_once) {
  const Device device = x.device();
  Normalized n{
      .input = x.data().contiguous(x.dim() == 4 ? MemoryFormat::channels_last : MemoryFormat::row_major),
      .scale = detail::dense_value(weight),
      .shift = detail::dense_value(bias),
      .mean = options.mean,
      .var = options.var,
      .out = {},
      .index = {}};
  if (options.training) {
    n.mean = empty({x.size(1)}, {.device = device});
    n.var = empty({x.size(1)}, {.device = device});
    MILLRACE_LAUNCH(device, batch_norm_statistics, n.input, n.mean, n.var);
  }
  if (at_once) {
    const Shape shape{x.size(0), x.size(1), x.size(2) / 2, x.size(3) / 2};
    n.out = detail::empty_image(shape, n.input);
    n.index = empty(shape, {.dtype = DType::u8, .format = MemoryFormat::channels_last});
    MILLRACE_LAUNCH_ON_CPU(batch_norm_max_pool2d_apply, operation_of(options.activation), n.input, n.mean,
                           n.var, options.eps, n.scale, n.shift, n.out, n.index);
    return n;
  }
  n.out = empty_like(n.input);
  if (options.activation == Activation::none) {
    MILLRACE_LAUNCH(device, batch_norm_apply, n.input, n.mean, n.var, options.eps, n.scale, n.shift, n.out);
  } else {
    const Tensor added = residual.defined() ? detail::in_order_of(n.input, residual.data()) : Tensor();
    MILLRACE_LAUNCH(device, batch_norm_activation_apply, operation_of(options.activation), n.input, added,
                    n.mean, n.var, options.eps, n.scale, n.shift, n.out);
  }
  return n;
}

/// The backward closure. The gradient of relu behind a residual comes from the result, that of other
/// activations from x.
struct BatchNormBackward {
  double eps;
  bool training;
  Activation activation;  // that the kernel sees to
  Tensor index;
  SavedTensor x, result, scale, shift, mean, var;

  BatchNormBackward(const Normalized& n, const Tensor& out, const BatchNormOptions& options, bool residual)
      : eps(options.eps),
        training(options.training),
        activation(residual ? Activation::none : options.activation),
        index(n.index),
        x(n.input),
        result(residual ? SavedTensor(out) : SavedTensor()),
        scale(n.scale),
        shift(activation != Activation::none ? SavedTensor(n.shift) : SavedTensor()),
        mean(n.mean),
        var(n.var) {}

  void operator()(const Tensor& gradient, InputGradients& inputs) const {
    const Tensor& input = x.get("batch_norm");
    const Tensor& sum = result.get("batch_norm");
    Tensor grad_sum = sum.defined() ? destination_like(input, inputs, 3, gradient) : Tensor();
    // The kernel is done with its sums before it writes.
    Tensor grad_x = inputs.needed(0) ? destination_like(input, inputs, 0, gradient) : Tensor();
    Tensor grad = index.defined() ? gradient.contiguous(MemoryFormat::channels_last)
                                  : detail::in_order_of(input, gradient);
    if (sum.defined()) {
      MILLRACE_LAUNCH(grad.device(), unary_backward, UnaryOp::relu, grad, Tensor(), sum, grad_sum);
      inputs.add(3, grad_sum);
      if (!inputs.needed(0) && !inputs.needed(1) && !inputs.needed(2)) {
        return;
      }
      grad = std::move(grad_sum);
    }
    std::array all{std::move(grad_x), inputs.needed(1) ? inputs.destination(1) : Tensor(),
                   inputs.needed(2) ? inputs.destination(2) : Tensor()};
    launch(grad, input, all[0], all[1], all[2]);
    for (int i = 0; i < 3; ++i) {
      if (inputs.needed(i)) {
        inputs.add(i, std::move(all[static_cast<std::size_t>(i)]));
      }
    }
  }

  void launch(const Tensor& grad, const Tensor& input, Tensor& grad_x, Tensor& grad_weight,
              Tensor& grad_bias) const {
    const Tensor &m = mean.get("batch_norm"), &v = var.get("batch_norm"), &weight = scale.get("batch_norm"),
                 &bias = shift.get("batch_norm");
    if (index.defined()) {
      MILLRACE_LAUNCH_ON_CPU(batch_norm_max_pool2d_backward, operation_of(activation), grad, index, input, m,
                             v, eps, weight, bias, training, grad_x, grad_weight, grad_bias);
    } else if (activation == Activation::none) {
      MILLRACE_LAUNCH(grad.device(), batch_norm_backward, grad, input, m, v, eps, weight, training, grad_x,
                      grad_weight, grad_bias);
    } else {
      MILLRACE_LAUNCH(grad.device(), batch_norm_activation_backward, operation_of(activation), grad, input, m,
                      v, eps, weight, bias, training, grad_x, grad_weight, grad_bias);
    }
  }
};

}  // namespace

BatchNormResult batch_norm(const Variable& x, const Variable& weight, const Variable& bias,
                           const BatchNormOptions& options, const Variable& residual) {
  check_batch_norm(x, weight, bias, options);
  check_residual(x, residual, options.activation);
  const bool at_once = pools(x, options, residual);
  Normalized n = normalize(x, weight, bias, options, residual, at_once);
  const std::array all{x, weight, bias, residual};
  const auto given = std::span(all).first(residual.defined() ? 4 : 3);
  Variable out = record("batch_norm", std::move(n.out), given, [&](const Tensor& made) {
    return BatchNormBackward(n, made, options, residual.defined());
  });
  if (options.max_pool && !at_once) {
    out = max_pool2d(out, {.kernel = 2});
  }
  return {std::move(out), n.mean, n.var};
}

namespace {

void check_pad(const Shape& x, const Pad2d& pad, PadMode mode) {
  const auto fits = [mode](std::int64_t before, std::int64_t after, std::int64_t size) {
    // Reflection does not repeat the edge, so it reaches at most size - 1 pixels in.
    return before >= 0 && after >= 0 && (mode == PadMode::zero || (before < size && after < size));
  };
  if (!fits(pad.left, pad.right, x[3]) || !fits(pad.top, pad.bottom, x[2])) {
    throw InputError(
        "pad2d: cannot pad input {} by left {}, right {}, top {}, bottom {}: expected 0 or more{}", x,
        pad.left, pad.right, pad.top, pad.bottom,
        mode == PadMode::reflect ? " and, to reflect, less than the image's side" : "");
  }
}

}  // namespace

Variable pad2d(const Variable& x, const Pad2d& pad, PadMode mode) {
  const Tensor input = detail::image_input(x, "pad2d");
  check_pad(x.shape(), pad, mode);
  Tensor out = detail::empty_image(
      {x.size(0), x.size(1), x.size(2) + pad.top + pad.bottom, x.size(3) + pad.left + pad.right}, input);
  MILLRACE_LAUNCH(x.device(), pad2d_forward, input, pad, mode, out);
  return record("pad2d", std::move(out), {x}, [&](const Tensor&) {
    return [pad, mode, shape = x.shape()](const Tensor& gradient, InputGradients& inputs) {
      const Tensor grad = gradient.contiguous(MemoryFormat::channels_last);
      Tensor grad_x = detail::image_destination(inputs, 0, shape, grad);
      MILLRACE_LAUNCH(grad.device(), pad2d_backward, grad, pad, mode, grad_x);
      inputs.add(0, std::move(grad_x));
    };
  });
}

namespace {

/// The kernels compute in f32; f64 takes the mask from them.
Tensor dropped(const Tensor& x, double p, std::uint64_t key, std::uint64_t first) {
  if (x.dtype() == DType::f64) {
    const Tensor mask = dropped(ones(x.shape(), {.device = x.device()}), p, key, first);
    return where(greater(mask, 0), x / (1 - p), zeros({}, {.dtype = DType::f64, .device = x.device()}));
  }
  const Tensor input = x.is_dense() ? x : x.contiguous();
  Tensor out = empty_like(input);
  refuse_recording("it draws random numbers");
  MILLRACE_LAUNCH(x.device(), dropout, input, p, key, first, out);
  return out;
}

}  // namespace

Variable dropout(const Variable& x, double p, std::uint64_t key, std::uint64_t first) {
  if (!(p >= 0 && p < 1)) {
    throw InputError("dropout: got probability {}, expected 0 or more and less than 1", p);
  }
  if (p == 0) {
    return x;
  }
  return record("dropout", dropped(x.data(), p, key, first), {x}, [&](const Tensor&) {
    return [p, key, first](const Tensor& gradient, InputGradients& inputs) {
      inputs.add(0, dropped(gradient, p, key, first));  // the mask is drawn again rather than kept
    };
  });
}

}  // namespace millrace
