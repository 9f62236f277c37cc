#include <array>
#include <optional>

#include "nn/init.h"
#include "nn/layers/containers.h"
#include "nn/layers/convolution.h"
#include "nn/layers/linear.h"
#include "nn/layers/norm.h"
#include "nn/models/factories.h"

namespace millrace::nn {

namespace {

Conv2dOptions conv3x3(Size2 stride) { return {.kernel = 3, .stride = stride, .padding = 1, .bias = false}; }

/// How the shortcut of a block gets from `in` to `out` channels at half the size. He et al., section 4.2.
enum class Shortcut : std::uint8_t {
  padded,    ///< Option A: every second pixel, zeros for the new channels; no parameters.
  projected  ///< Option B: a 1x1 convolution and a batch norm.
};

struct BasicBlock : Module {
  BasicBlock(std::int64_t in, std::int64_t out, Size2 stride, Shortcut shortcut)
      : conv1(in, out, conv3x3(stride)),
        bn1(out, {.activation = Activation::relu}),
        conv2(out, out, conv3x3(1)),
        bn2(out, {.activation = Activation::relu}),
        more_(out - in) {
    add("conv1", conv1);
    add("bn1", bn1);
    add("conv2", conv2);
    add("bn2", bn2);
    if (more_ > 0 && shortcut == Shortcut::projected) {
      downsample.emplace<Conv2d>(in, out, Conv2dOptions{.kernel = 1, .stride = stride, .bias = false});
      downsample.emplace<BatchNorm2d>(out);
      add("downsample", downsample);
    }
  }

  Variable forward(const Variable& x) override {
    const Variable y = conv2(bn1(conv1(x)));
    return bn2.forward(y, shortcut(x));
  }

  Variable shortcut(const Variable& x) {
    if (more_ == 0) {
      return x;
    }
    if (!downsample.children().empty()) {
      return downsample(x);
    }
    const Variable half = slice(slice(x, 2, 0, x.size(2), 2), 3, 0, x.size(3), 2);
    Shape shape = half.shape();
    shape[1] = more_ / 2;
    const Variable none(zeros(shape, {x.dtype(), x.device(), MemoryFormat::channels_last}));
    return cat(std::array{none, half, none}, 1);
  }

  Conv2d conv1;
  BatchNorm2d bn1;
  Conv2d conv2;
  BatchNorm2d bn2;
  Sequential downsample;

 private:
  std::int64_t more_;  // channels that the block adds
};

/// He et al., "Deep residual learning for image recognition", arXiv 1512.03385, in the forms for CIFAR: a 3x3
/// stem and no pooling before the blocks. Names are torchvision's.
struct ResNet : Module {
  ResNet(const ModelOptions& options, std::vector<std::int64_t> widths, int blocks, Shortcut shortcut)
      : conv1(options.channels, widths.front(), conv3x3(1)),
        bn1(widths.front(), {.activation = Activation::relu}),
        stages(widths.size()),
        fc(widths.back(), options.classes) {
    add("conv1", conv1);
    add("bn1", bn1);
    std::int64_t in = widths.front();
    for (std::size_t i = 0; i < widths.size(); ++i) {
      for (int block = 0; block < blocks; ++block) {
        const Size2 stride = i > 0 && block == 0 ? 2 : 1;
        stages[i].emplace<BasicBlock>(in, widths[i], stride, shortcut);
        in = widths[i];
      }
      add(fmt::format("layer{}", i + 1), stages[i]);
    }
    add("fc", fc);
    for (Module* module : modules()) {
      if (auto* conv = dynamic_cast<Conv2d*>(module)) {
        init_kaiming_normal(conv->weight.data());
      }
    }
  }

  Variable forward(const Variable& image) override {
    Variable x = bn1(conv1(image));
    for (Sequential& stage : stages) {
      x = stage(x);
    }
    return fc(flatten(adaptive_avg_pool2d(x, 1)));
  }

  Conv2d conv1;
  BatchNorm2d bn1;

  std::vector<Sequential> stages;
  Linear fc;
};

}  // namespace

std::unique_ptr<Module> make_resnet18(const ModelOptions& options) {
  return std::make_unique<ResNet>(options, std::vector<std::int64_t>{64, 128, 256, 512}, 2,
                                  Shortcut::projected);
}

std::unique_ptr<Module> make_resnet20(const ModelOptions& options) {
  return std::make_unique<ResNet>(options, std::vector<std::int64_t>{16, 32, 64}, 3, Shortcut::padded);
}

}  // namespace millrace::nn
