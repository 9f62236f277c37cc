#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "autograd/variable.h"

namespace millrace {

/// What all copies of a Variable share.
struct Variable::Node {
  Tensor value;
  std::shared_ptr<Function> creator;  // null for leaves
  bool requires_grad = false;
  // The rest is for leaves.
  bool grad_is_empty = true;  // the next gradient overwrites `grad`
  int uses_to_come = 0;       // in the running backward pass
  Tensor grad;                // undefined until the first gradient, or bound to a buffer

  /// Adds a gradient, or takes it over as the first one. @throws InputError naming `operation` on a wrong
  /// shape.
  void accumulate(Tensor gradient, std::string_view operation);
};

/// Where the gradient of an input goes: to the function that made it or to a leaf; neither when none is
/// wanted. It does not hold the input's value: what the backward pass needs is saved by its closure.
struct Edge {
  std::shared_ptr<Function> function;
  std::shared_ptr<Variable::Node> leaf;
};

/// What an operation's backward closure fills: one gradient for each input.
class InputGradients {
 public:
  /// Whether input i wants a gradient; work for others is to be skipped.
  bool needed(int i) const;
  /// Memory for the gradient of input i, dense in the input's memory format, to be overwritten in full and
  /// then handed to `add`. For the first gradient of a parameter this is its place in the flat buffer, so
  /// that nothing is copied.
  Tensor destination(int i) const;
  /// The same for an elementwise operation, which may write over `gradient`: when nobody else reads it, that
  /// is returned.
  Tensor destination(int i, const Tensor& gradient) const;
  /// Hands over (adds) the gradient of input i; converts to the input's type.
  /// @throws InputError naming the operation when the shape is not the input's.
  void add(int i, Tensor gradient);

 private:
  friend class BackwardPass;
  explicit InputGradients(Function& function) : function_(function) {}
  Function& function_;
};

/// A tensor kept for the backward pass, with the version it had; changing it in place since is an error.
class SavedTensor {
 public:
  SavedTensor() = default;
  SavedTensor(Tensor tensor)  // NOLINT: implicit by intent
      : tensor_(std::move(tensor)), version_(tensor_.defined() ? tensor_.storage()->version() : 0) {}
  /// @throws InputError naming `operation` when the tensor was changed in place since.
  const Tensor& get(std::string_view operation) const {
    if (tensor_.defined() && tensor_.storage()->version() != version_) {
      throw_changed(operation);
    }
    return tensor_;
  }

 private:
  [[noreturn]] void throw_changed(std::string_view operation) const;
  Tensor tensor_;
  std::uint64_t version_ = 0;
};

/// What an operation is called and costs.
struct Operation {
  template <std::convertible_to<std::string_view> Name>
  Operation(const Name& literal, double cost = 0)  // NOLINT: implicit by intent
      : name(literal), operations(cost) {}
  std::string_view name;  ///< As it prints: "conv2d", "relu".
  /// Floating-point operations of the forward pass (a multiplication and an addition are two), where it
  /// multiplies with a trained weight.
  double operations;
};

/// A node of the graph: one operation that was run, with one output. Made by `record`.
class Function {
 public:
  std::string_view name() const { return operation_.name; }
  /// As in `Operation`.
  double operations() const { return operation_.operations; }
  /// The creators of the inputs, in their order; null where an input is a leaf.
  std::vector<std::shared_ptr<Function>> previous_functions() const;
  /// Of the output.
  const Shape& shape() const { return shape_; }
  /// Larger than that of every function before it in the graph; `backward` visits in descending order.
  std::uint64_t sequence() const { return sequence_; }

  Function(const Function&) = delete;
  Function& operator=(const Function&) = delete;

 protected:
  using Run = void (*)(Function&, const Tensor& gradient, InputGradients& inputs);
  using Release = void (*)(Function&);
  Function(Operation operation, const Tensor& value, std::span<const Variable> inputs, Run run,
           Release release);
  ~Function();  // lets go of long chains without recursion

 private:
  friend class BackwardPass;
  friend class InputGradients;
  void accumulate(Tensor gradient, std::string_view operation);

  Operation operation_;
  std::uint64_t sequence_;
  Run run_;
  Release release_;
  bool visited_ = false;   // by the running backward pass
  bool released_ = false;  // backward ran without retain_graph, so the closure is gone
  Shape shape_;
  TensorOptions options_;
  Tensor gradient_;          // of the output, while backward runs
  std::array<Edge, 3> few_;  // nearly all operations have at most three inputs
  std::vector<Edge> many_;
  std::span<Edge> edges_;
};

namespace detail {

/// A function with its backward closure in one block of memory.
template <typename Backward>
class RecordedFunction final : public Function {
 public:
  RecordedFunction(Operation operation, const Tensor& value, std::span<const Variable> inputs,
                   Backward backward)
      : Function(operation, value, inputs, &run, &release), backward_(std::move(backward)) {}

 private:
  static void run(Function& self, const Tensor& gradient, InputGradients& inputs) {
    (*static_cast<RecordedFunction&>(self).backward_)(gradient, inputs);
  }
  static void release(Function& self) { static_cast<RecordedFunction&>(self).backward_.reset(); }

  std::optional<Backward> backward_;
};

bool wants_history(std::span<const Variable> inputs);
Variable make_result(Tensor value, std::shared_ptr<Function> creator);

}  // namespace detail

/// Wraps the result of an operation. Records history when this thread records it and an input requires a
/// gradient; `make_backward` is called only then, so what it saves costs nothing otherwise:
///   return record("exp", std::move(out), {x}, [&](const Tensor& out) {
///     return [out = SavedTensor(out)](const Tensor& gradient, InputGradients& inputs) {
///       inputs.add(0, gradient * out.get("exp"));
///     };
///   });
/// `make_backward` is given the result. What counts in `nn::Work` says what it costs: {"linear", 2e6}.
template <typename MakeBackward>
Variable record(Operation operation, Tensor value, std::span<const Variable> inputs,
                MakeBackward&& make_backward) {
  if (!detail::wants_history(inputs)) {
    return Variable(std::move(value));
  }
  auto backward = make_backward(std::as_const(value));
  auto function = std::make_shared<detail::RecordedFunction<decltype(backward)>>(operation, value, inputs,
                                                                                 std::move(backward));
  return detail::make_result(std::move(value), std::move(function));
}

template <typename MakeBackward>
Variable record(Operation operation, Tensor value, std::initializer_list<Variable> inputs,
                MakeBackward&& make_backward) {
  return record(operation, std::move(value), std::span(inputs.begin(), inputs.size()),
                std::forward<MakeBackward>(make_backward));
}

}  // namespace millrace
