#include "nn/work.h"

#include <unordered_set>

#include "autograd/function.h"
#include "nn/switches.h"

namespace millrace::nn {

namespace {

/// Each element of the output is a product with one row of the weight, before the pooling where there is one.
double operations(const Function& function) {
  const Variable weight = function.leaves()[1];
  if (!weight.defined()) {
    return 0;
  }
  const auto row = static_cast<double>(weight.data().numel() / weight.size(0));
  const double products = function.name() == "conv2d_max_pool2d" ? 4 : 1;
  return 2 * products * static_cast<double>(function.shape().numel()) * row;
}

bool is_counted(std::string_view name) {
  return name == "conv2d" || name == "conv2d_max_pool2d" || name == "linear";
}

}  // namespace

Work measure_work(Module& net, const Shape& image) {
  Work work;
  for (const Variable& parameter : net.parameters()) {
    work.parameters += parameter.data().numel();
  }
  const EvaluationScope scope(net);
  const Variable out = net(zeros({1, image[0], image[1], image[2]}, {.format = MemoryFormat::channels_last}));
  std::vector<std::shared_ptr<Function>> open;
  std::unordered_set<const Function*> seen;
  const auto visit = [&](const std::shared_ptr<Function>& function) {
    if (function && seen.insert(function.get()).second) {
      open.push_back(function);
    }
  };
  visit(out.creator());
  while (!open.empty()) {
    const auto function = std::move(open.back());
    open.pop_back();
    if (is_counted(function->name())) {
      work.forward_operations += operations(*function);
    }
    for (const auto& previous : function->previous_functions()) {
      visit(previous);
    }
  }
  return work;
}

}  // namespace millrace::nn
