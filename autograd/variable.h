#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <utility>

#include "tensor/tensor.h"

namespace millrace {

class Function;

/// A tensor that remembers how it was made. Copies share the same node: value, gradient and creator.
class Variable {
 public:
  Variable() = default;
  /// A leaf of the graph. A plain tensor may stand wherever a Variable is expected.
  Variable(Tensor value, bool requires_grad = false);  // NOLINT: implicit by intent

  bool defined() const { return node_ != nullptr; }
  /// The value, without history; changing it in place is seen by every copy.
  Tensor& data() const;
  const Shape& shape() const { return data().shape(); }
  std::int64_t size(int dim) const { return data().size(dim); }
  int dim() const { return data().dim(); }
  DType dtype() const { return data().dtype(); }
  Device device() const { return data().device(); }
  double item() const { return data().item(); }

  bool requires_grad() const;
  void set_requires_grad(bool value);  ///< Leaves only. @throws InputError otherwise.
  bool is_leaf() const { return creator() == nullptr; }

  /// The accumulated gradient of a leaf; undefined before the first `backward`, zeros after `zero_grad`.
  Tensor grad() const;
  /// The next gradient overwrites instead of adding; costs nothing until the gradient is read.
  void zero_grad();
  /// Gradients are from now on written into `buffer`: a row-major view of a flat buffer, of this shape and
  /// type.
  void bind_grad(Tensor buffer);

  /// The function that made this value; null for leaves.
  const std::shared_ptr<Function>& creator() const;
  /// The same value, cut off from its history.
  Variable detach() const;

  /// Fills `grad()` of every leaf that this scalar depends on. Frees the graph.
  void backward() const;
  /// The same with the gradient of the result given, and with the graph kept if asked.
  struct BackwardOptions;
  /// @throws InputError when no leaf requires a gradient, for a missing or wrongly shaped gradient, for a
  /// graph that an earlier backward freed, and for a saved tensor that was changed in place.
  void backward(const Tensor& gradient) const;
  void backward(const BackwardOptions& options) const;

  /// Identity: the same for all copies.
  const void* id() const { return node_.get(); }

  struct Node;  // autograd's own; see function.h
  explicit Variable(std::shared_ptr<Node> node) : node_(std::move(node)) {}
  const std::shared_ptr<Node>& node() const { return node_; }

 private:
  std::shared_ptr<Node> node_;
};

struct Variable::BackwardOptions {
  Tensor gradient = {};  ///< d(loss)/d(this), one number for one; ones for a scalar when undefined.
  bool retain_graph = false;
  /// Called once for each leaf when all its uses are in and the last node's whole backward is done.
  std::function<void(const Variable& leaf)> on_grad_ready = {};
};

std::ostream& operator<<(std::ostream& out, const Variable& variable);

/// Whether operations of this thread record history.
bool grad_enabled();

/// While it lives, operations of this thread record no history.
class NoGradScope {
 public:
  NoGradScope();
  ~NoGradScope();
  NoGradScope(const NoGradScope&) = delete;
  NoGradScope& operator=(const NoGradScope&) = delete;

 private:
  bool before_;
};

}  // namespace millrace
