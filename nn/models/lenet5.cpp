#include "nn/layers/convolution.h"
#include "nn/layers/linear.h"
#include "nn/models/factories.h"

namespace millrace::nn {

namespace {

/// The network of PyTorch's first tutorial, after LeCun et al., Proc. IEEE 86 (11), 1998. 62,006 parameters
/// for 3 channels and 10 classes.
struct LeNet5 : Module {
  explicit LeNet5(const ModelOptions& options)
      : conv1(options.channels, 6, {.kernel = 5}), conv2(6, 16, {.kernel = 5}), fc3(84, options.classes) {
    add("conv1", conv1);
    add("conv2", conv2);
    add("fc1", fc1);
    add("fc2", fc2);
    add("fc3", fc3);
  }

  Variable forward(const Variable& image) override {
    Variable x = image.size(-1) == 28 ? pad2d(image, {.left = 2, .right = 2, .top = 2, .bottom = 2}) : image;
    // The tutorial has relu in front of the pooling: the same numbers, and four times as many of them.
    x = relu(max_pool2d(conv1(x), {.kernel = 2}));
    x = relu(max_pool2d(conv2(x), {.kernel = 2}));
    return fc3(relu(fc2(relu(fc1(flatten(x))))));
  }

  Conv2d conv1, conv2;
  Linear fc1{400, 120}, fc2{120, 84}, fc3;
};

}  // namespace

std::unique_ptr<Module> make_lenet5(const ModelOptions& options) { return std::make_unique<LeNet5>(options); }

}  // namespace millrace::nn
