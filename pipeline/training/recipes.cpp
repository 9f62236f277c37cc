#include <cmath>

#include "nn/layers/linear.h"
#include "pipeline/training/recipe.h"
#include "pipeline/training/whitening.h"

namespace millrace {
namespace {

/// Of CIFAR-10's training images.
const std::vector<float> kMean = {0.4914f, 0.4822f, 0.4465f}, kStd = {0.2470f, 0.2435f, 0.2616f};
constexpr std::int64_t kWhitenedImages = 5000;

/// The published scripts sum the loss over a batch of B images, and the trainer divides the gradient by B.
/// With the rate times B and the decay divided by B, its steps are theirs: rate B (g / B + decay / B w) =
/// rate (g + decay w).
nn::SgdOptions for_summed_loss(nn::SgdOptions options, std::int64_t batch_size) {
  options.learning_rate *= static_cast<double>(batch_size);
  options.weight_decay /= static_cast<double>(batch_size);
  return options;
}

template <typename Layer>
Layer& layer(nn::Module& net, const std::string& name) {
  for (const auto& [child, module] : net.children()) {
    if (auto* found = dynamic_cast<Layer*>(module); found != nullptr && child == name) {
      return *found;
    }
  }
  throw InputError(
      "recipe: {} has no layer '{}', which this recipe initializes; use it with --model airbench94",
      net.kind(), name);
}

/// Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498.
Recipe airbench94() {
  constexpr std::int64_t kBatch = 1024;
  constexpr double kMomentum = 0.85;
  // Rate and decay of the paper are "decoupled": per 1024 images, whatever the momentum, the decay not times
  // the rate.
  const double scale = 1024 * (1 + 1 / (1 - kMomentum));
  const double rate = 11.5 / scale, decay = 0.0153 * kBatch / scale;
  Recipe recipe{.name = "airbench94", .model = "airbench94", .epochs = 9.9, .batch_size = kBatch};
  recipe.optimizer = for_summed_loss(
      {.learning_rate = rate, .momentum = kMomentum, .weight_decay = decay / rate, .nesterov = true}, kBatch);
  recipe.groups = {{.word = "n1.bias", .rate = 64, .decay = 1.0 / 64},
                   {.word = "n2.bias", .rate = 64, .decay = 1.0 / 64},
                   {.word = "whiten.bias", .epochs = 3}};
  recipe.schedule = "triangle:0.2:0.23:0.07";
  recipe.label_smoothing = 0.2;
  recipe.lookahead_every = 5;
  recipe.lookahead_decay = std::pow(0.95, 5);
  recipe.transforms = "random_crop:2:reflect,alternating_flip,normalize";
  recipe.mean = kMean;
  recipe.std = kStd;
  recipe.test_time_augmentation = true;
  recipe.first_images = kWhitenedImages;
  recipe.initialize = [](nn::Module& net, const Tensor& images) {
    auto& whiten = layer<nn::Conv2d>(net, "whiten");
    millrace::whiten(whiten, images);
    whiten.bias.data().zero_();
  };
  return recipe;
}

/// Jordan's published script airbench94_muon.py.
Recipe airbench94_muon() {
  constexpr std::int64_t kBatch = 2000;
  constexpr double kDecay = 2e-6 * kBatch, kBiasRate = 0.053;
  // The script divides the scores by 256, our network by 9: weights times kHead, the rate times its square
  // and the decay divided by it train the same scores.
  constexpr double kHead = 9.0 / 256, kHeadRate = 0.67 * kHead * kHead;
  const auto sgd = [](double rate) {
    return for_summed_loss(
        {.learning_rate = rate, .momentum = 0.85, .weight_decay = kDecay / rate, .nesterov = true}, kBatch);
  };
  Recipe recipe = airbench94();
  recipe.name = "airbench94-muon";
  recipe.epochs = 8;
  recipe.batch_size = kBatch;
  recipe.optimizer = nn::MuonOptions{.learning_rate = 0.24,
                                     .momentum = 0.6,
                                     .nesterov = true,
                                     .newton_schulz_steps = 3,
                                     .normalize_weights = true};
  recipe.groups = {{.word = "n1.bias", .optimizer = sgd(kBiasRate)},
                   {.word = "n2.bias", .optimizer = sgd(kBiasRate)},
                   {.word = "whiten.bias", .optimizer = sgd(kBiasRate), .epochs = 3, .schedule = "linear"},
                   {.word = "head.weight", .optimizer = sgd(kHeadRate)}};
  recipe.schedule = "linear";
  recipe.lookahead_every = 0;
  recipe.initialize = [](nn::Module& net, const Tensor& images) {
    whiten(layer<nn::Conv2d>(net, "whiten"), images);
    Tensor& head = layer<nn::Linear>(net, "head").weight.data();
    head.mul_(kHead / std::sqrt(var(head).item()));
  };
  return recipe;
}

/// As the resnets of He et al., arXiv 1512.03385, are usually trained on CIFAR-10 today.
Recipe resnet18() {
  return {.name = "resnet18",
          .model = "resnet18",
          .epochs = 200,
          .batch_size = 128,
          .optimizer =
              nn::SgdOptions{.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 5e-4, .nesterov = true},
          .schedule = "cosine",
          .transforms = "random_crop:4,horizontal_flip,normalize",
          .mean = kMean,
          .std = kStd};
}

}  // namespace

Recipe find_recipe(std::string_view name) {
  std::string names;
  for (auto* make : {airbench94, airbench94_muon, resnet18}) {
    Recipe recipe = make();
    if (recipe.name == name) {
      return recipe;
    }
    names += (names.empty() ? "" : ", ") + recipe.name;
  }
  throw InputError("recipe: got '{}', expected one of {}", name, names);
}

}  // namespace millrace
