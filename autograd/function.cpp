#include "autograd/function.h"

#include <algorithm>

#include "tensor/ops.h"

namespace millrace {

namespace {

thread_local std::uint64_t last_sequence = 0;

bool is_sole_owner(const Tensor& tensor) { return tensor.storage().use_count() == 1; }

MemoryFormat format_of(const Tensor& tensor) {
  const bool channels_last =
      tensor.dim() == 4 && !tensor.is_contiguous() && tensor.is_contiguous(MemoryFormat::channels_last);
  return channels_last ? MemoryFormat::channels_last : MemoryFormat::row_major;
}

Tensor check_gradient(Tensor gradient, const Shape& shape, DType dtype, std::string_view operation) {
  if (gradient.shape() != shape) {
    throw InputError("{}: got a gradient {}, expected {}, the shape of what it is the gradient of", operation,
                     gradient.shape(), shape);
  }
  if (gradient.dtype() != dtype) {
    gradient = gradient.to(dtype);
  }
  return gradient;
}

}  // namespace

void SavedTensor::throw_changed(std::string_view operation) const {
  throw InputError(
      "{}: a tensor {} that its backward pass needs was changed in place (version {}, saved as {}); change a "
      "clone()",
      operation, tensor_.shape(), tensor_.storage()->version(), version_);
}

void Variable::Node::accumulate(Tensor gradient, std::string_view operation) {
  gradient = check_gradient(std::move(gradient), value.shape(), value.dtype(), operation);
  if (!grad.defined()) {
    const bool take = is_sole_owner(gradient) && gradient.strides() == value.strides();
    if (take) {
      grad = std::move(gradient);
    } else {
      grad = empty_like(value);
      grad.copy_(gradient);
    }
  } else if (!grad_is_empty) {
    grad.add_(gradient);
  } else if (gradient.raw() != grad.raw() || gradient.strides() != grad.strides()) {
    grad.copy_(gradient);
  }
  grad_is_empty = false;
}

void Function::accumulate(Tensor gradient, std::string_view operation) {
  gradient = check_gradient(std::move(gradient), shape_, options_.dtype, operation);
  if (!gradient_.defined()) {
    gradient_ = std::move(gradient);
  } else if (is_sole_owner(gradient_) && gradient_.is_dense()) {
    gradient_.add_(gradient);
  } else {
    gradient_ = millrace::add(gradient_, gradient);
  }
}

bool InputGradients::needed(int i) const {
  const Edge& edge = function_.edges_[static_cast<std::size_t>(i)];
  return edge.function || edge.leaf;
}

Tensor InputGradients::destination(int i) const {
  const Edge& edge = function_.edges_[static_cast<std::size_t>(i)];
  if (edge.function) {
    return empty(edge.function->shape_, edge.function->options_);
  }
  const Variable::Node& leaf = *edge.leaf;
  const MemoryFormat format = format_of(leaf.value);
  // A leaf that is two inputs at once must not lend its buffer twice.
  const auto uses = std::ranges::count(function_.edges_, edge.leaf, &Edge::leaf);
  if (leaf.grad.defined() && leaf.grad_is_empty && uses == 1 && leaf.grad.is_contiguous(format)) {
    return leaf.grad;
  }
  return empty(leaf.value.shape(), {leaf.value.dtype(), leaf.value.device(), format});
}

Tensor InputGradients::destination(int i, const Tensor& gradient) const {
  const Edge& edge = function_.edges_[static_cast<std::size_t>(i)];
  const bool reuse =
      edge.function && is_sole_owner(gradient) && gradient.dtype() == edge.function->options_.dtype &&
      gradient.shape() == edge.function->shape_ && gradient.is_contiguous(edge.function->options_.format);
  return reuse ? gradient : destination(i);
}

void InputGradients::add(int i, Tensor gradient) {
  const Edge& edge = function_.edges_[static_cast<std::size_t>(i)];
  if (edge.function) {
    edge.function->accumulate(std::move(gradient), function_.operation_.name);
  } else if (edge.leaf) {
    edge.leaf->accumulate(std::move(gradient), function_.operation_.name);
  }
}

Function::Function(Operation operation, const Tensor& value, std::span<const Variable> inputs, Run run,
                   Release release)
    : operation_(operation),
      sequence_(last_sequence),
      run_(run),
      release_(release),
      shape_(value.shape()),
      options_{value.dtype(), value.device(), format_of(value)} {
  if (inputs.size() > few_.size()) {
    many_.resize(inputs.size());
    edges_ = many_;
  } else {
    edges_ = std::span(few_).first(inputs.size());
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].requires_grad()) {
      continue;
    }
    const auto& node = inputs[i].node();
    if (node->creator) {
      edges_[i].function = node->creator;
      // A graph may be built by several threads; each keeps its own count.
      sequence_ = std::max(sequence_, node->creator->sequence_);
    } else {
      edges_[i].leaf = node;
    }
  }
  last_sequence = ++sequence_;
}

Function::~Function() {
  // What only this function holds is let go one by one, each emptied before its own destructor runs.
  std::vector<std::shared_ptr<Function>> unlinked;
  const auto unlink = [&unlinked](Function& function) {
    for (Edge& edge : function.edges_) {
      if (edge.function.use_count() == 1) {
        unlinked.push_back(std::move(edge.function));
      } else {
        edge.function.reset();  // so that the last of several edges finds itself the only one
      }
    }
  };
  unlink(*this);
  while (!unlinked.empty()) {
    const std::shared_ptr<Function> next = std::move(unlinked.back());
    unlinked.pop_back();
    unlink(*next);
  }
}

std::vector<std::shared_ptr<Function>> Function::previous_functions() const {
  std::vector<std::shared_ptr<Function>> functions;
  functions.reserve(edges_.size());
  for (const Edge& edge : edges_) {
    functions.push_back(edge.function);
  }
  return functions;
}

namespace detail {

bool wants_history(std::span<const Variable> inputs) {
  return grad_enabled() && std::ranges::any_of(inputs, &Variable::requires_grad);
}

Variable make_result(Tensor value, std::shared_ptr<Function> creator) {
  Variable result(std::move(value));
  result.node()->creator = std::move(creator);
  return result;
}

}  // namespace detail

}  // namespace millrace
