#include "autograd/variable.h"

#include <utility>

#include "autograd/function.h"

namespace millrace {

namespace {

thread_local bool keeps_history = true;

}  // namespace

Variable::Variable(Tensor value, bool requires_grad) {
  if (!value.defined()) {
    return;
  }
  node_ = std::make_shared<Node>();
  node_->value = std::move(value);
  if (requires_grad) {
    set_requires_grad(true);
  }
}

Tensor& Variable::data() const {
  if (!node_) {
    throw InputError("variable: got an undefined Variable, expected one with a value");
  }
  return node_->value;
}

bool Variable::requires_grad() const { return node_ && (node_->requires_grad || node_->creator); }

void Variable::set_requires_grad(bool value) {
  const Tensor& tensor = data();
  if (node_->creator) {
    throw InputError("set_requires_grad: expected a leaf, got the result of {}; use detach()",
                     node_->creator->name());
  }
  if (value && !is_floating(tensor.dtype())) {
    throw InputError("set_requires_grad: only floating types have gradients, got {} {}", tensor.dtype(),
                     tensor.shape());
  }
  node_->requires_grad = value;
}

Tensor Variable::grad() const {
  if (!node_ || !node_->grad.defined()) {
    return {};
  }
  if (node_->grad_is_empty) {
    node_->grad.zero_();
    node_->grad_is_empty = false;
  }
  return node_->grad;
}

void Variable::zero_grad() {
  if (node_) {
    node_->grad_is_empty = true;
  }
}

void Variable::bind_grad(Tensor buffer) {
  const Tensor& value = data();
  if (buffer.shape() != value.shape() || buffer.dtype() != value.dtype() ||
      buffer.device() != value.device()) {
    throw InputError("bind_grad: got a buffer {} {} on {}, expected {} {} on {} as the value has",
                     buffer.dtype(), buffer.shape(), buffer.device().to_string(), value.dtype(),
                     value.shape(), value.device().to_string());
  }
  if (!buffer.is_contiguous()) {
    throw InputError("bind_grad: got a buffer {} with strides {}, expected a row-major one", buffer.shape(),
                     buffer.strides());
  }
  node_->grad = std::move(buffer);
  node_->grad_is_empty = true;
}

const std::shared_ptr<Function>& Variable::creator() const {
  static const std::shared_ptr<Function> none;
  return node_ ? node_->creator : none;
}

Variable Variable::detach() const { return Variable(data()); }

void Variable::backward() const { backward(BackwardOptions{}); }

void Variable::backward(const Tensor& gradient) const { backward(BackwardOptions{.gradient = gradient}); }

std::ostream& operator<<(std::ostream& out, const Variable& variable) {
  if (!variable.defined()) {
    return out << "Variable, undefined\n";
  }
  return out << "Variable containing:\n" << variable.data();
}

bool grad_enabled() { return keeps_history; }

NoGradScope::NoGradScope() : before_(std::exchange(keeps_history, false)) {}
NoGradScope::~NoGradScope() { keeps_history = before_; }

}  // namespace millrace
