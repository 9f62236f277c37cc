#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/layers/convolution.h"
#include "nn/layers/dropout.h"
#include "nn/layers/linear.h"
#include "nn/layers/norm.h"
#include "pipeline/training/trainer.h"

namespace millrace {

/// A network with everything whose bits could depend on who computes what: batch statistics, dropout, odd
/// sizes.
struct SmallNet : nn::Module {
  nn::Conv2d conv1{3, 9, {.kernel = 3, .stride = 2}};
  nn::BatchNorm2d norm1{9};
  nn::Dropout drop{0.25};
  nn::Linear fc1{9 * 3 * 3, 21}, fc2{21, 10};

  SmallNet() {
    add("conv1", conv1);
    add("norm1", norm1);
    add("drop", drop);
    add("fc1", fc1);
    add("fc2", fc2);
  }
  Variable forward(const Variable& image) override {
    const Variable x = max_pool2d(relu(norm1(conv1(image))), {.kernel = 5});
    return fc2(relu(fc1(drop(flatten(x)))));
  }
};

inline std::unique_ptr<nn::Module> make_small_net() { return std::make_unique<SmallNet>(); }

inline Variable sum_of_losses(nn::Module& net, const Batch& batch) {
  return cross_entropy(net(batch.images()), batch.labels(), {.reduction = Reduction::sum});
}

inline constexpr nn::SgdOptions kSgd{
    .learning_rate = 0.05, .momentum = 0.9, .weight_decay = 5e-4, .nesterov = true};

/// What two trainings have to agree on to the bit.
struct Trained {
  std::string hash;
  std::vector<double> losses;
  bool operator==(const Trained&) const = default;
};

}  // namespace millrace
