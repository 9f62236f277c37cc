#include "autograd/ops/support.h"
#include "tensor/kernels/launch.h"
#include "tensor/kernels/rows.h"
#include "tensor/ops/operand.h"

namespace millrace {

namespace {

/// x as dense rows along `dim`, which the softmax kernels take.
Tensor rows_along(const Tensor& x, int dim) {
  const Tensor last = x.transpose(dim, -1).contiguous();
  return last.view({x.size(dim) == 0 ? 0 : x.numel() / x.size(dim), x.size(dim)});
}

/// The inverse: rows as a tensor of `shape` with them along `dim`.
Tensor from_rows(const Tensor& rows, Shape shape, int dim) {
  std::swap(shape[dim], shape[-1]);
  return rows.view(shape).transpose(dim, -1);
}

// The kernels compute in f32; f64 is composed.
Tensor log_softmax_f64(const Tensor& x) {
  const ReduceOptions row{.dims = {1}, .keep_dims = true};
  const Tensor shifted = x - max(x, row);
  return shifted - log(sum(exp(shifted), row));
}

Tensor softmax_rows(const Tensor& x) {
  if (x.dtype() == DType::f64) {
    return exp(log_softmax_f64(x));
  }
  Tensor out = empty_like(x);
  MILLRACE_LAUNCH(x.device(), softmax, x, out);
  return out;
}

Tensor log_softmax_rows(const Tensor& x) {
  if (x.dtype() == DType::f64) {
    return log_softmax_f64(x);
  }
  Tensor out = empty_like(x);
  MILLRACE_LAUNCH(x.device(), log_softmax, x, out);
  return out;
}

Tensor softmax_rows_backward(const Tensor& gradient, const Tensor& out) {
  const ReduceOptions row{.dims = {1}, .keep_dims = true};
  if (out.dtype() == DType::f64) {
    return out * (gradient - sum(gradient * out, row));
  }
  Tensor grad_x = empty_like(out);
  MILLRACE_LAUNCH(out.device(), softmax_backward, gradient, out, grad_x);
  return grad_x;
}

Tensor log_softmax_rows_backward(const Tensor& gradient, const Tensor& out) {
  const ReduceOptions row{.dims = {1}, .keep_dims = true};
  if (out.dtype() == DType::f64) {
    return gradient - exp(out) * sum(gradient, row);
  }
  Tensor grad_x = empty_like(out);
  MILLRACE_LAUNCH(out.device(), log_softmax_backward, gradient, out, grad_x);
  return grad_x;
}

template <typename Forward, typename Backward>
Variable along_rows(std::string_view name, const Variable& x, int dim, Forward forward, Backward backward) {
  dim = wrap_dim(dim, x.dim(), name);
  const Tensor out = forward(rows_along(x.data(), dim));
  return record(name, from_rows(out, x.shape(), dim), {x}, [&](const Tensor&) {
    return [name, dim, backward, shape = x.shape(), out = SavedTensor(out)](const Tensor& gradient,
                                                                            InputGradients& inputs) {
      inputs.add(0, from_rows(backward(rows_along(gradient, dim), out.get(name)), shape, dim));
    };
  });
}

}  // namespace

Variable softmax(const Variable& x, int dim) {
  return along_rows("softmax", x, dim, softmax_rows, softmax_rows_backward);
}

Variable log_softmax(const Variable& x, int dim) {
  return along_rows("log_softmax", x, dim, log_softmax_rows, log_softmax_rows_backward);
}

namespace {

/// Losses are computed in f32 at least.
DType loss_type(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

/// Of a Tensor or a Variable.
template <typename Losses>
Losses reduced(const Losses& losses, Reduction reduction) {
  switch (reduction) {
    case Reduction::mean:
      return mean(losses);
    case Reduction::sum:
      return sum(losses);
    case Reduction::none:
      break;
  }
  return losses;
}

/// The gradient of each of the losses of `shape`, from that of the reduced one; one number, expanded, where
/// they agree.
Tensor unreduced(const Tensor& gradient, Reduction reduction, const Shape& shape) {
  if (reduction == Reduction::none) {
    return gradient.contiguous();
  }
  const bool is_mean = reduction == Reduction::mean;
  return (is_mean ? gradient / static_cast<double>(shape.numel()) : gradient).expand(shape);
}

void check_cross_entropy(const Variable& logits, const Tensor& target, double smoothing) {
  if (logits.dim() != 2 || !is_floating(logits.dtype())) {
    throw InputError("cross_entropy: expected logits [n, classes] of a floating type, got {} {}",
                     logits.dtype(), logits.shape());
  }
  const bool soft = is_floating(target.dtype());
  const Shape expected = soft ? logits.shape() : Shape{logits.size(0)};
  if (target.shape() != expected || (!soft && target.dtype() != DType::i64)) {
    throw InputError("cross_entropy: for logits {} expected a target i64 [{}] or probabilities {}, got {} {}",
                     logits.shape(), logits.size(0), logits.shape(), target.dtype(), target.shape());
  }
  check_operands("cross_entropy", {&logits.data(), &target});
  if (!(smoothing >= 0 && smoothing <= 1)) {
    throw InputError("cross_entropy: got label smoothing {}, expected 0 to 1", smoothing);
  }
}

/// Composed, for f64. Classes without a share are not multiplied by zero: a masked one has infinite logits.
Variable label_cross_entropy(const Variable& logits, const Tensor& labels,
                             const CrossEntropyOptions& options) {
  const double smoothing = options.label_smoothing;
  const Variable log_probabilities = log_softmax(logits, 1);
  Variable losses = -squeeze(gather(log_probabilities, 1, labels.unsqueeze(1)), 1);
  if (smoothing > 0) {
    losses = losses * (1 - smoothing) - mean(log_probabilities, {.dims = {1}}) * smoothing;
  }
  return reduced(losses, options.reduction);
}

Variable soft_cross_entropy(const Variable& logits, Tensor target, const CrossEntropyOptions& options) {
  if (options.label_smoothing > 0) {
    target = target * (1 - options.label_smoothing) +
             options.label_smoothing / static_cast<double>(logits.size(1));
  }
  return reduced(-sum(log_softmax(logits, 1) * target, {.dims = {1}}), options.reduction);
}

}  // namespace

Variable cross_entropy(const Variable& logits, const Tensor& target, const CrossEntropyOptions& options) {
  check_cross_entropy(logits, target, options.label_smoothing);
  const DType dtype = loss_type(logits.dtype());
  if (is_floating(target.dtype())) {
    return soft_cross_entropy(to(logits, dtype), target.to(dtype), options);
  }
  const Tensor labels = target.contiguous();
  const Tensor input = logits.data().to(DType::f32).contiguous();
  Tensor log_probabilities = empty_like(input);
  Tensor losses = empty({logits.size(0)}, {.device = logits.device()});
  MILLRACE_LAUNCH(input.device(), cross_entropy_forward, input, labels, options.label_smoothing,
                  log_probabilities, losses);
  if (dtype == DType::f64) {  // the kernel checked the labels
    return label_cross_entropy(logits, labels, options);
  }
  return record("cross_entropy", reduced(losses, options.reduction), {logits}, [&](const Tensor&) {
    return [options, labels = SavedTensor(labels), log_probabilities](const Tensor& gradient,
                                                                      InputGradients& inputs) {
      const Tensor each = unreduced(gradient, options.reduction, {log_probabilities.size(0)});
      Tensor grad_logits = inputs.destination(0);
      if (!grad_logits.is_contiguous()) {
        grad_logits = empty_like(log_probabilities);
      }
      MILLRACE_LAUNCH(gradient.device(), cross_entropy_backward, each, log_probabilities,
                      labels.get("cross_entropy"), options.label_smoothing, grad_logits);
      inputs.add(0, std::move(grad_logits));
    };
  });
}

Variable mse_loss(const Variable& input, const Variable& target, const MseOptions& options) {
  if (input.shape() != target.shape()) {
    throw InputError("mse_loss: input {} and target {} must have one shape", input.shape(), target.shape());
  }
  const DType dtype = loss_type(promote(input.dtype(), target.dtype()));
  const Tensor difference = input.data().to(dtype) - target.data().to(dtype);
  Tensor value = reduced(difference * difference, options.reduction);
  return record("mse_loss", std::move(value), {input, target}, [&](const Tensor&) {
    return [difference, reduction = options.reduction](const Tensor& gradient, InputGradients& inputs) {
      const Tensor grad = unreduced(gradient, reduction, difference.shape()) * (difference * 2);
      if (inputs.needed(0)) {
        inputs.add(0, grad);
      }
      if (inputs.needed(1)) {
        inputs.add(1, -grad);
      }
    };
  });
}

}  // namespace millrace
