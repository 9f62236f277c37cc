#include "autograd/ops/support.h"
#include "tensor/kernels/elementwise.h"
#include "tensor/kernels/launch.h"

namespace millrace {

namespace {

Tensor checked(const Variable& x, std::string_view name) {
  if (!is_floating(x.dtype())) {
    throw InputError("{}: expected a floating type, got {} {}; convert with to()", name, x.dtype(),
                     x.shape());
  }
  return x.data();
}

enum class Save { input, output };

/// Runs `op`; its gradient is made from the saved input, or from the saved output where that suffices.
Variable unary(std::string_view name, UnaryOp op, const Variable& x, Save save) {
  const Tensor input = checked(x, name);
  Tensor out = empty_like(input);
  MILLRACE_LAUNCH(input.device(), unary, op, input, out);
  return record(name, std::move(out), {x}, [&](const Tensor& result) {
    return [name, op, save, kept = SavedTensor(save == Save::input ? input : result)](
               const Tensor& gradient, InputGradients& inputs) {
      const Tensor& tensor = kept.get(name);
      const Tensor none;
      Tensor grad_x = inputs.destination(0, gradient);
      MILLRACE_LAUNCH(gradient.device(), unary_backward, op, gradient, save == Save::input ? tensor : none,
                      save == Save::input ? none : tensor, grad_x);
      inputs.add(0, std::move(grad_x));
    };
  });
}

}  // namespace

Variable exp(const Variable& x) { return unary("exp", UnaryOp::exp, x, Save::output); }
Variable log(const Variable& x) { return unary("log", UnaryOp::log, x, Save::input); }
Variable sqrt(const Variable& x) { return unary("sqrt", UnaryOp::sqrt, x, Save::output); }
Variable tanh(const Variable& x) { return unary("tanh", UnaryOp::tanh, x, Save::output); }
Variable abs(const Variable& x) { return unary("abs", UnaryOp::abs, x, Save::input); }
Variable relu(const Variable& x) { return unary("relu", UnaryOp::relu, x, Save::output); }
Variable gelu(const Variable& x) { return unary("gelu", UnaryOp::gelu, x, Save::input); }
Variable sigmoid(const Variable& x) { return unary("sigmoid", UnaryOp::sigmoid, x, Save::output); }

}  // namespace millrace
