#include "nn/init.h"
#include "nn/layers/containers.h"
#include "nn/layers/convolution.h"
#include "nn/layers/linear.h"
#include "nn/layers/norm.h"
#include "nn/models/factories.h"

namespace millrace::nn {

namespace {

struct Group : Module {
  Group(std::int64_t in, std::int64_t out)
      : c1(in, out, {.kernel = 3, .padding = 1, .bias = false, .max_pool = true}),
        c2(out, out, {.kernel = 3, .padding = 1, .bias = false}),
        n1(out, {.eps = 1e-12, .momentum = 0.4, .activation = Activation::gelu}),
        n2(out, {.eps = 1e-12, .momentum = 0.4, .activation = Activation::gelu}) {
    add("c1", c1);
    add("c2", c2);
    add("n1", n1);
    add("n2", n2);
    init_dirac(c1.weight.data());
    init_dirac(c2.weight.data());
    n1.weight.set_requires_grad(false);
    n2.weight.set_requires_grad(false);
  }

  Variable forward(const Variable& x) override { return n2(c2(n1(c1(x)))); }

  Conv2d c1, c2;
  BatchNorm2d n1, n2;
};

/// Keller Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498. 1.97 M parameters; the
/// whitening convolution and the scales of the batch norms are frozen.
struct AirBench94 : Module {
  explicit AirBench94(const ModelOptions& options)
      : whiten(options.channels, 24, {.kernel = 2}), head(256, options.classes, {.bias = false}) {
    add("whiten", whiten);
    add("groups", groups);
    add("head", head);
    whiten.weight.set_requires_grad(false);
    groups.emplace<Group>(24, 64);
    groups.emplace<Group>(64, 256);
    groups.emplace<Group>(256, 256);
  }

  Variable forward(const Variable& image) override {
    const Variable x = groups(gelu(whiten(image)));
    return head(flatten(max_pool2d(x, {.kernel = 3}))) * (1.0 / 9);
  }

  Conv2d whiten;
  Sequential groups;
  Linear head;
};

}  // namespace

std::unique_ptr<Module> make_airbench94(const ModelOptions& options) {
  return std::make_unique<AirBench94>(options);
}

}  // namespace millrace::nn
