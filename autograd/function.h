#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "autograd/variable.h"

namespace millrace {

/// What an operation's backward closure fills: one gradient for each input.
class InputGradients {
 public:
  /// Whether input i wants a gradient; work for others is to be skipped.
  bool needed(int i) const;
  /// Memory for the gradient of input i, to be overwritten in full and then handed to `add`. For the first gradient
  /// of a parameter this is its place in the flat buffer, so that nothing is copied.
  Tensor destination(int i) const;
  /// Hands over (adds) the gradient of input i.
  void add(int i, Tensor gradient);

 private:
  friend class BackwardPass;
  explicit InputGradients(Function& function) : function_(function) {}
  Function& function_;
  std::vector<Tensor> added_;  // one per input, undefined until added
};

/// Computes the inputs' gradients from the output's.
using BackwardFunction = std::function<void(const Tensor& gradient, InputGradients& inputs)>;

/// A tensor kept for the backward pass, with the version it had; changing it in place since is an error.
class SavedTensor {
 public:
  SavedTensor(Tensor tensor) : tensor_(std::move(tensor)), version_(tensor_.defined() ? tensor_.storage()->version() : 0) {}  // NOLINT
  /// @throws InputError naming `operation` when the tensor was changed in place since.
  const Tensor& get(std::string_view operation) const;

 private:
  Tensor tensor_;
  std::uint64_t version_;
};

/// A node of the graph: one operation that was run, with one output.
class Function {
 public:
  Function(std::string_view name, std::vector<Variable> inputs, BackwardFunction backward);
  ~Function();  // releases long chains without recursion

  /// As it prints: "conv2d", "relu". A literal.
  std::string_view name() const { return name_; }
  const std::vector<Variable>& inputs() const { return inputs_; }
  /// The creators of the inputs, in their order; null where an input is a leaf.
  std::vector<std::shared_ptr<Function>> previous_functions() const;
  /// Increases with every function made in this thread; `backward` visits in descending order.
  std::uint64_t sequence() const { return sequence_; }

 private:
  friend class BackwardPass;
  friend class InputGradients;
  std::string_view name_;
  std::uint64_t sequence_;
  std::vector<Variable> inputs_;  // cleared once backward ran without retain_graph
  BackwardFunction backward_;
  Tensor gradient_;  // of the output, while backward runs
  std::uint64_t visit_ = 0;
};

/// Wraps the result of an operation. Records history when this thread records it and an input requires a gradient;
/// `make_backward` is called only then, so what it saves costs nothing otherwise:
///   return record("relu", std::move(out), {x}, [&] { return [out = SavedTensor(out)](const Tensor& g, InputGradients& in) {...}; });
template <typename MakeBackward>
Variable record(std::string_view name, Tensor value, std::initializer_list<Variable> inputs, MakeBackward&& make_backward);

namespace detail {
bool wants_history(std::span<const Variable> inputs);
Variable attach(std::string_view name, Tensor value, std::vector<Variable> inputs, BackwardFunction backward);
}  // namespace detail

template <typename MakeBackward>
Variable record(std::string_view name, Tensor value, std::initializer_list<Variable> inputs, MakeBackward&& make_backward) {
  if (!detail::wants_history(std::span(inputs.begin(), inputs.size()))) { return Variable(std::move(value)); }
  return detail::attach(name, std::move(value), std::vector<Variable>(inputs), make_backward());
}

}  // namespace millrace
