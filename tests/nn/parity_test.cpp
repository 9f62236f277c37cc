#include <functional>
#include <gtest/gtest.h>
#include <map>

#include "golden.h"
#include "nn/layers/activation.h"
#include "nn/layers/containers.h"
#include "nn/layers/convolution.h"
#include "nn/layers/linear.h"
#include "nn/layers/norm.h"
#include "nn/layers/pooling.h"
#include "nn/layers/shape.h"
#include "nn/loss.h"
#include "nn/models/models.h"
#include "nn/optimizers/optimizer.h"
#include "tests/tensor/gpu/bounds.h"

namespace millrace {
namespace {

/// What a network came to on the golden inputs.
struct Found {
  std::map<std::string, Tensor> tensors;  // after the first step: output, gradients, buffers
  std::vector<double> loss_errors;        // of each step, relative
};

Found train_on_golden(const std::string& name, const nlohmann::json& golden, Device device) {
  const auto images = golden["images"].get<std::int64_t>();
  const auto size = golden["size"].get<std::int64_t>();
  const auto net = nn::make_model(name);
  golden::fill(*net, name);
  net->to(device);
  const Tensor x = golden::tensor(golden["inputs"].get<std::string>(), {images, 3, size, size}, 2)
                       .contiguous(MemoryFormat::channels_last)
                       .to(device);
  const Tensor y = golden::labels(name + "/y", images, 10).to(device);

  nn::Sgd sgd(*net, {.learning_rate = 0.001, .momentum = 0.9});
  Found result;
  auto& [found, loss_errors] = result;
  for (const double golden_loss : golden["losses"]) {
    sgd.zero_grad();
    const Variable out = (*net)(x);
    const Variable loss = cross_entropy(out, y);
    loss.backward();
    if (found.empty()) {
      found["output"] = out.data().clone();
      for (const auto& [key, p] : net->named_parameters()) {
        if (p.requires_grad()) {
          found["grad " + key] = p.grad().clone();
        }
      }
      for (const auto& [key, buffer] : net->named_buffers()) {
        if (is_floating(buffer.dtype())) {
          found["buffer " + key] = buffer.clone();
        }
      }
    }
    sgd.step();
    loss_errors.push_back((loss.item() - golden_loss) / golden_loss);
  }
  return result;
}

/// Our error against PyTorch in float64, at most twice what PyTorch's own f32 errs.
///
/// A tensor of a few numbers can be near exact by luck, PyTorch's or ours, so each is allowed twice the
/// larger of PyTorch's error for it and the root mean square of PyTorch's errors over all tensors of its kind
/// (the output, the gradients, the buffers) in this network; the losses are taken together. PyTorch's f32 is
/// a CPU's; a GPU is allowed what its order of sums costs besides.
void expect_parity(const std::string& name, Device device) {
  const double most = 2 * (device.is_cuda() ? test::kGpuErrorToCpus : 1);
  const auto golden = golden::read(name);
  auto [found, loss_errors] = train_on_golden(name, golden, device);

  std::map<std::string, std::vector<double>> kinds;  // PyTorch's errors
  for (const auto& [key, entry] : golden["tensors"].items()) {
    kinds[key.substr(0, key.find(' '))].push_back(entry["error"]);
  }
  ASSERT_EQ(found.size(), golden["tensors"].size());
  std::map<std::string, double> largest;  // of each kind, our error relative to what is allowed
  for (const auto& [key, entry] : golden["tensors"].items()) {
    ASSERT_TRUE(found.contains(key)) << key;
    const double usual = golden::root_mean_square(kinds[key.substr(0, key.find(' '))]);
    const double allowed = most * std::max(entry["error"].get<double>(), usual);
    const double error = golden::error(found[key], entry, name + "/" + key);
    EXPECT_LE(error, allowed) << name << ": " << key;
    double& share = largest[key.substr(0, key.find(' '))];
    share = std::max(share, error / allowed);
  }
  const double loss_error = golden::root_mean_square(loss_errors);
  const double loss_allowed =
      most * golden::root_mean_square(golden["loss_errors"].get<std::vector<double>>());
  EXPECT_LE(loss_error, loss_allowed);
  largest["losses"] = loss_error / loss_allowed;
  for (const auto& [kind, share] : largest) {
    testing::Test::RecordProperty(kind + " (1 is allowed)", fmt::format("{:.2f}", share));
  }
}

class Parity : public testing::TestWithParam<const char*> {};

TEST_P(Parity, ErrsAtMostTwiceAsMuchAsPyTorchsF32) { expect_parity(GetParam(), kCpu); }

TEST_P(Parity, ErrsAtMostEightTimesAsMuchAsPyTorchsF32OnCuda) {
  if (cuda_device_count() == 0) {
    GTEST_SKIP() << cuda_unavailable_reason();
  }
  expect_parity(GetParam(), {Device::Kind::cuda, 0});
}

INSTANTIATE_TEST_SUITE_P(Networks, Parity,
                         testing::Values("lenet5", "resnet9", "resnet18", "resnet20", "airbench94"),
                         [](const auto& info) { return std::string(info.param); });

struct LayerCase {
  std::string name;
  Shape input;
  std::function<std::unique_ptr<nn::Module>()> make;
};

template <typename M, typename... Args>
LayerCase layer(std::string name, Shape input, Args... args) {
  return {std::move(name), input, [=] { return std::make_unique<M>(args...); }};
}

std::unique_ptr<nn::Module> make_sequential() {
  auto body = std::make_unique<nn::Sequential>();
  body->emplace<nn::Conv2d>(8, 4, nn::Conv2dOptions{.kernel = 3, .bias = false});
  body->emplace<nn::BatchNorm2d>(4);
  body->emplace<nn::ReLU>();
  body->emplace<nn::MaxPool2d>(Pool2dOptions{.kernel = 2});
  body->emplace<nn::Flatten>();
  body->emplace<nn::Linear>(24, 3);
  return body;
}

std::unique_ptr<nn::Module> make_evaluating_batch_norm() {
  auto norm = std::make_unique<nn::BatchNorm2d>(8);
  norm->eval();
  norm->running_mean.copy_(golden::tensor("batch_norm_eval/running_mean", {8}));
  norm->running_var.copy_(golden::tensor("batch_norm_eval/running_var", {8}, 0.5, 1));
  return norm;
}

/// In the order of scripts/make-goldens.
std::vector<LayerCase> layer_cases() {
  using namespace nn;
  using Conv = Conv2dOptions;
  const Shape image{3, 8, 9, 7};
  const Pad2d uneven{.left = 1, .right = 2, .top = 3, .bottom = 0};
  return {
      layer<Conv2d>("conv", image, 8, 6, Conv{.kernel = 3}),
      layer<Conv2d>("conv_stride", image, 8, 16,
                    Conv{.kernel = {3, 5}, .stride = 2, .padding = {1, 2}, .bias = false}),
      layer<Conv2d>("conv_dilation", image, 8, 5, Conv{.kernel = 3, .dilation = 2}),
      layer<Conv2d>("conv_groups", image, 8, 12, Conv{.kernel = 3, .padding = 1, .groups = 4}),
      layer<Conv2d>("conv_depthwise", image, 8, 8, Conv{.kernel = 3, .padding = 1, .groups = 8}),
      layer<Conv2d>("conv_pixel", {1, 8, 1, 1}, 8, 32, Conv{.kernel = 1}),
      layer<Linear>("linear", {5, 20}, 20, 7),
      layer<Linear>("linear_plain", {1, 1}, 1, 3, LinearOptions{.bias = false}),
      layer<BatchNorm2d>("batch_norm", image, 8, BatchNorm2dOptions{.momentum = 0.3}),
      {"batch_norm_eval", image, make_evaluating_batch_norm},
      layer<MaxPool2d>("max_pool", image, Pool2dOptions{.kernel = 3, .stride = 2, .padding = 1}),
      layer<AvgPool2d>("avg_pool", image, Pool2dOptions{.kernel = {2, 3}, .stride = 2, .padding = 1}),
      layer<AdaptiveMaxPool2d>("adaptive_max_pool", image, Size2{4, 3}),
      layer<AdaptiveAvgPool2d>("adaptive_avg_pool", image, Size2{4, 3}),
      layer<ReLU>("relu", image),
      layer<GELU>("gelu", image),
      layer<Sigmoid>("sigmoid", image),
      layer<Tanh>("tanh", image),
      layer<Softmax>("softmax", {4, 11}, 1),
      layer<LogSoftmax>("log_softmax", {4, 11}, 1),
      layer<Flatten>("flatten", image),
      layer<ZeroPad2d>("zero_pad", image, uneven),
      layer<ReflectionPad2d>("reflection_pad", image, uneven),
      {"sequential", image, make_sequential},
  };
}

TEST(LayerParity, OutputsAndGradientsAreWithin1e5OfPyTorch) {
  const auto goldens = golden::read("layers");
  for (const LayerCase& test : layer_cases()) {
    const auto& golden = goldens[test.name];
    const auto module = test.make();
    golden::fill(*module, test.name);
    const Variable x(golden::tensor(test.name + "/x", test.input, 2), true);
    const Variable out = (*module)(x);
    const auto shape = golden["shape"].get<std::vector<std::int64_t>>();
    ASSERT_EQ(out.shape(), Shape(std::span<const std::int64_t>(shape))) << test.name;
    out.backward(golden::tensor(test.name + "/g", out.shape()));

    std::map<std::string, Tensor> found{{"output", out.data()}, {"grad x", x.grad()}};
    for (const auto& [key, p] : module->named_parameters()) {
      found["grad " + key] = p.grad();
    }
    for (const auto& [key, buffer] : module->named_buffers()) {
      if (is_floating(buffer.dtype())) {
        found["buffer " + key] = buffer;
      }
    }
    ASSERT_EQ(found.size(), golden["tensors"].size()) << test.name;
    for (const auto& [key, entry] : golden["tensors"].items()) {
      ASSERT_TRUE(found.contains(key)) << test.name << ": " << key;
      EXPECT_LE(golden::error(found[key], entry, test.name + "/" + key), 1e-5) << test.name << ": " << key;
    }
  }
}

TEST(LayerParity, LossesAreWithin1e5OfPyTorch) {
  const auto goldens = golden::read("layers");
  const auto check = [&](const std::string& name, const auto& criterion) {
    const Variable x(golden::tensor(name + "/x", {6, 5}, 2), true);
    const Variable loss = criterion(x, name + "/y");
    loss.backward();
    const auto& tensors = goldens[name]["tensors"];
    EXPECT_LE(golden::error(loss.data(), tensors["output"], name + "/output"), 1e-5) << name;
    EXPECT_LE(golden::error(x.grad(), tensors["grad x"], name + "/grad x"), 1e-5) << name;
  };
  check("cross_entropy", [](const Variable& x, const std::string& y) {
    return nn::CrossEntropyLoss{}(x, golden::labels(y, 6, 5));
  });
  check("cross_entropy_smooth", [](const Variable& x, const std::string& y) {
    const nn::CrossEntropyLoss criterion{{.label_smoothing = 0.2, .reduction = Reduction::sum}};
    return criterion(x, golden::labels(y, 6, 5));
  });
  check("cross_entropy_soft", [](const Variable& x, const std::string& y) {
    return nn::CrossEntropyLoss{}(x, golden::tensor(y, {6, 5}, 0.125, 0.25));
  });
  check("mse", [](const Variable& x, const std::string& y) {
    return nn::MSELoss{}(x, golden::tensor(y, {6, 5}));
  });
}

}  // namespace
}  // namespace millrace
