#include <algorithm>

#include "autograd/function.h"

namespace millrace {

/// One run of `backward`: collects the functions that a result depends on, then runs them latest first, so
/// that a function's gradient is complete when its turn comes.
class BackwardPass {
 public:
  BackwardPass(Function& root, const Variable::BackwardOptions& options);
  /// Leaves no marks behind, also after an error.
  ~BackwardPass();
  BackwardPass(const BackwardPass&) = delete;
  BackwardPass& operator=(const BackwardPass&) = delete;

  void run(Tensor gradient);

 private:
  void visit(Function& function);
  void run_one(Function& function);

  // Kept between passes for its memory; a pass inside a pass finds it empty.
  static thread_local std::vector<Function*> scratch_;

  const Variable::BackwardOptions& options_;
  std::vector<Function*> order_;
  std::size_t done_ = 0;
};

thread_local std::vector<Function*> BackwardPass::scratch_;

BackwardPass::BackwardPass(Function& root, const Variable::BackwardOptions& options)
    : options_(options), order_(std::move(scratch_)) {
  order_.clear();
  visit(root);
  for (std::size_t i = 0; i < order_.size(); ++i) {  // grows while it is walked
    for (const Edge& edge : order_[i]->edges_) {
      if (edge.function) {
        visit(*edge.function);
      }
      if (edge.leaf) {
        ++edge.leaf->uses_to_come;
      }
    }
  }
  std::ranges::sort(order_, std::ranges::greater{}, &Function::sequence_);
}

BackwardPass::~BackwardPass() {
  for (; done_ < order_.size(); ++done_) {
    Function& function = *order_[done_];
    function.visited_ = false;
    function.gradient_ = Tensor();
    for (const Edge& edge : function.edges_) {
      if (edge.leaf) {
        edge.leaf->uses_to_come = 0;
      }
    }
  }
  scratch_ = std::move(order_);
}

void BackwardPass::visit(Function& function) {
  if (function.visited_) {
    return;
  }
  function.visited_ = true;
  order_.push_back(&function);
}

void BackwardPass::run(Tensor gradient) {
  for (const Function* function : order_) {
    if (function->released_) {
      throw InputError(
          "backward: the graph behind {} was freed by an earlier backward; give that one retain_graph = true",
          function->name());
    }
  }
  order_.front()->accumulate(std::move(gradient), "backward");
  while (done_ < order_.size()) {
    run_one(*order_[done_]);
    ++done_;
  }
}

void BackwardPass::run_one(Function& function) {
  // Held here alone, so that an operation may see whether it can write over it.
  const Tensor gradient = std::exchange(function.gradient_, Tensor());
  if (gradient.defined()) {
    InputGradients inputs(function);
    function.run_(function, gradient, inputs);
  }
  function.visited_ = false;
  if (!options_.retain_graph) {
    function.release_(function);
    function.released_ = true;
  }
  for (const Edge& edge : function.edges_) {
    if (edge.leaf && --edge.leaf->uses_to_come == 0 && options_.on_grad_ready) {
      options_.on_grad_ready(Variable(edge.leaf));
    }
  }
}

namespace {

Tensor first_gradient(const Variable& result, const Variable::BackwardOptions& options) {
  if (!result.requires_grad()) {
    throw InputError("backward: the result {} depends on nothing that requires a gradient", result.shape());
  }
  const bool is_number = result.data().numel() == 1;
  if (options.gradient.defined()) {
    return is_number && options.gradient.numel() == 1 ? options.gradient.reshape(result.shape())
                                                      : options.gradient;
  }
  if (!is_number) {
    throw InputError(
        "backward: a result {} needs a gradient of that shape, got none; only one number does without",
        result.shape());
  }
  return ones(result.shape(), {.dtype = result.dtype(), .device = result.device()});
}

}  // namespace

void Variable::backward(const BackwardOptions& options) const {
  Tensor gradient = first_gradient(*this, options);
  const std::shared_ptr<Function> root = creator();  // kept alive whatever a hook does to this Variable
  if (root) {
    BackwardPass(*root, options).run(std::move(gradient));
  } else {
    node_->accumulate(std::move(gradient), "backward");
    if (options.on_grad_ready) {
      options.on_grad_ready(*this);
    }
  }
}

}  // namespace millrace
