#include "nn/layers/containers.h"
#include "nn/layers/convolution.h"
#include "nn/layers/linear.h"
#include "nn/layers/norm.h"
#include "nn/models/factories.h"

namespace millrace::nn {

namespace {

struct ConvBlock : Sequential {
  ConvBlock(std::int64_t in, std::int64_t out, bool pool = false) {
    emplace<Conv2d>(in, out, Conv2dOptions{.kernel = 3, .padding = 1, .bias = false});
    emplace<BatchNorm2d>(out, BatchNorm2dOptions{.activation = Activation::relu, .max_pool = pool});
  }
};

struct Residual : Sequential {
  explicit Residual(std::int64_t channels) {
    emplace<ConvBlock>(channels, channels);
    emplace<ConvBlock>(channels, channels);
  }
  Variable forward(const Variable& x) override { return x + Sequential::forward(x); }
};

/// The residual network of DAWNBench's CIFAR-10 entries (David Page, "How to train your ResNet"). 6.57 M
/// parameters.
struct ResNet9 : Module {
  explicit ResNet9(const ModelOptions& options) : prep(options.channels, 64), head(512, options.classes) {
    add("prep", prep);
    add("layer1", layer1);
    add("res1", res1);
    add("layer2", layer2);
    add("layer3", layer3);
    add("res2", res2);
    add("head", head);
  }

  Variable forward(const Variable& image) override {
    const Variable x = res2(layer3(layer2(res1(layer1(prep(image))))));
    return head(flatten(adaptive_max_pool2d(x, 1))) * 0.125;
  }

  ConvBlock prep, layer1{64, 128, true};
  Residual res1{128};
  ConvBlock layer2{128, 256, true}, layer3{256, 512, true};
  Residual res2{512};
  Linear head;
};

}  // namespace

std::unique_ptr<Module> make_resnet9(const ModelOptions& options) {
  return std::make_unique<ResNet9>(options);
}

}  // namespace millrace::nn
