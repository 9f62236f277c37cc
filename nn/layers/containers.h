#pragma once

#include <memory>
#include <string>
#include <utility>

#include "nn/module.h"

namespace millrace::nn {

/// Modules run one after another; it owns them, and names them "0", "1", ...
class Sequential : public Module {
 public:
  /// Makes the next module: `body.emplace<nn::Conv2d>(3, 64, nn::Conv2dOptions{.kernel = 3})`.
  template <typename M, typename... Args>
  M& emplace(Args&&... args) {
    auto module = std::make_unique<M>(std::forward<Args>(args)...);
    M& made = *module;
    add(std::to_string(owned_.size()), made);
    owned_.push_back(std::move(module));
    return made;
  }
  Variable forward(const Variable& x) override;

 private:
  std::vector<std::unique_ptr<Module>> owned_;
};

}  // namespace millrace::nn
