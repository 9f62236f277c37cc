#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "autograd/ops.h"
#include "tensor/ops/random.h"

namespace millrace::nn {

/// A part of a network: parameters, buffers and submodules with names, and a forward function.
///
/// Members are registered by reference in the constructor (`add("conv1", conv1)`), so a module neither copies
/// nor moves. Parameters are f32.
class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  virtual Variable forward(const Variable& x) = 0;
  Variable operator()(const Variable& x) { return forward(x); }

  /// Unique parameters in the order of registration, depth first.
  std::vector<Variable> parameters() const;
  /// Names are PyTorch's: "groups.0.conv1.weight". A shared parameter appears under its first name only.
  std::vector<std::pair<std::string, Variable>> named_parameters() const;
  std::vector<std::pair<std::string, Tensor>> named_buffers() const;
  const std::vector<std::pair<std::string, Module*>>& children() const { return children_; }
  /// This module and all below it, depth first, parents first.
  std::vector<Module*> modules();

  void train(bool on = true);
  void eval() { train(false); }
  bool is_training() const { return training_; }
  void zero_grad();
  /// Moves parameters and buffers; to be called before an optimizer is made.
  void to(Device device);

  /// The kind and its options on one line, "Conv2d(3, 6, kernel_size=(5, 5), stride=(1, 1))"; containers
  /// print children.
  virtual std::string describe() const;
  /// The class's name without its namespaces, "Net".
  virtual std::string kind() const;

  // Statistics of a batch that shards sum before the module uses them, as batch norm's.
  /// How many f32 sums it has; most modules have none.
  virtual std::int64_t statistics_size() const { return 0; }
  /// Where training adds its statistics from now on: f32 [statistics_size()]. An undefined tensor goes back
  /// to using them at once.
  virtual void collect_statistics(Tensor /*sums*/) {}
  /// Uses what was collected.
  virtual void apply_statistics() {}

 protected:
  void add(std::string name, Module& child) { children_.emplace_back(std::move(name), &child); }
  Variable add_parameter(std::string name, Tensor value);
  /// Registers a tensor that is saved and broadcast but not trained.
  void add_buffer(std::string name, Tensor& buffer) { buffers_.emplace_back(std::move(name), &buffer); }

 private:
  std::vector<std::pair<std::string, Module*>> children_;
  std::vector<std::pair<std::string, Variable>> parameters_;
  std::vector<std::pair<std::string, Tensor*>> buffers_;
  bool training_ = true;
};

/// Prints as the tutorial shows: the kind, then one line a child.
std::ostream& operator<<(std::ostream& out, const Module& module);

/// Where random initial weights come from in this thread.
Generator& default_generator();
/// Starts this thread's random numbers anew: initial weights and the masks of dropout.
void manual_seed(std::uint64_t seed);

}  // namespace millrace::nn
