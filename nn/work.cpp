#include "nn/work.h"

#include <unordered_set>

#include "autograd/function.h"
#include "nn/switches.h"

namespace millrace::nn {

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
    work.forward_operations += function->operations();
    for (const auto& previous : function->previous_functions()) {
      visit(previous);
    }
  }
  return work;
}

}  // namespace millrace::nn
