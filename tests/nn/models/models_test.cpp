#include "nn/models/models.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nn/state.h"

namespace millrace {
namespace {

using testing::Contains;
using testing::HasSubstr;

std::int64_t count(const nn::Module& net) {
  std::int64_t total = 0;
  for (const Variable& parameter : net.parameters()) {
    total += parameter.data().numel();
  }
  return total;
}

TEST(Models, HaveTheirPapersNumberOfParameters) {
  EXPECT_EQ(count(*nn::make_model("lenet5")), 62006);
  EXPECT_EQ(count(*nn::make_model("resnet9")), 6573130);
  EXPECT_EQ(count(*nn::make_model("resnet18")), 11173962);
  EXPECT_EQ(count(*nn::make_model("resnet20")), 269722);
  EXPECT_EQ(count(*nn::make_model("airbench94")), 1972792);
}

TEST(Models, HavePyTorchsNames) {
  const auto names = [](const char* model) {
    std::vector<std::string> all;
    for (const auto& [name, tensor] : nn::state_dict(*nn::make_model(model))) {
      all.push_back(name);
    }
    return all;
  };
  EXPECT_THAT(names("lenet5"), Contains("fc3.bias"));
  EXPECT_THAT(names("resnet9"), Contains("res1.0.0.weight"));
  EXPECT_THAT(names("resnet18"), Contains("layer2.0.downsample.1.running_var"));
  EXPECT_THAT(names("resnet20"), Contains("layer3.2.bn2.num_batches_tracked"));
  EXPECT_THAT(names("airbench94"), Contains("groups.2.n1.running_mean"));
}

TEST(Models, Airbench94StartsAsItsPaperSays) {
  const auto net = nn::make_model("airbench94");
  for (const auto& [name, parameter] : net->named_parameters()) {
    if (name.starts_with("groups") && parameter.dim() == 4) {
      const Tensor filters = parameter.data();
      const std::int64_t passing = filters.size(1);
      EXPECT_EQ(sum(abs(filters.narrow(0, 0, passing))).item(), static_cast<double>(passing)) << name;
      EXPECT_EQ(filters.at({passing - 1, passing - 1, 1, 1}), 1) << name;
    }
  }
  EXPECT_GT(min(abs(net->named_parameters()[2].second.data()[63])).item(), 0)
      << "the other filters are random";
}

TEST(Models, TakeChannelsClassesAndSizesOfTheData) {
  struct Case {
    const char* model;
    int size;
  };
  Generator generator(3);
  for (const auto& [model, size] : {Case{"lenet5", 28},
                                    {"lenet5", 32},
                                    {"resnet9", 28},
                                    {"resnet18", 28},
                                    {"resnet20", 24},
                                    {"airbench94", 28}}) {
    const auto net = nn::make_model(model, {.channels = 1, .classes = 7, .height = size, .width = size});
    const Variable out = (*net)(randn({2, 1, size, size}, generator));
    EXPECT_EQ(out.shape(), (Shape{2, 7})) << model << " " << size;
    sum(out).backward();
  }
}

TEST(Models, RunInBf16WithF32Weights) {
  Generator generator(4);
  const Tensor x = randn({4, 3, 32, 32}, generator).contiguous(MemoryFormat::channels_last);
  for (const std::string& model : nn::model_names()) {
    nn::manual_seed(1);
    const auto net = nn::make_model(model);
    const Tensor exact = (*net)(x).data();
    const Variable out = (*net)(x.to(DType::bf16));
    EXPECT_EQ(out.dtype(), DType::bf16) << model;
    const double scale = max(abs(exact)).item();
    EXPECT_LT(max(abs(out.data().to(DType::f32) - exact)).item(), 0.06 * scale) << model;
    cross_entropy(out, zeros({4}, {.dtype = DType::i64})).backward();
    for (const auto& [name, parameter] : net->named_parameters()) {
      if (parameter.requires_grad()) {
        ASSERT_TRUE(parameter.grad().defined()) << model << " " << name;
        EXPECT_EQ(parameter.grad().dtype(), DType::f32) << model << " " << name;
      }
    }
  }
}

TEST(Models, AirbenchFreezesItsWhiteningAndScales) {
  std::vector<std::string> frozen;
  for (const auto& [name, parameter] : nn::make_model("airbench94")->named_parameters()) {
    if (!parameter.requires_grad()) {
      frozen.push_back(name);
    }
  }
  EXPECT_THAT(frozen, testing::ElementsAre("whiten.weight", "groups.0.n1.weight", "groups.0.n2.weight",
                                           "groups.1.n1.weight", "groups.1.n2.weight", "groups.2.n1.weight",
                                           "groups.2.n2.weight"));
}

std::string message(std::string_view name, const nn::ModelOptions& options) {
  try {
    nn::make_model(name, options);
  } catch (const InputError& error) {
    return error.what();
  }
  return "nothing thrown";
}

TEST(Models, RefuseUnknownNamesAndSizes) {
  EXPECT_EQ(message("lenet", {}),
            "make_model: got \"lenet\", expected one of lenet5, resnet9, resnet18, resnet20, airbench94");
  EXPECT_THAT(message("lenet5", {.height = 30, .width = 30}),
              HasSubstr("lenet5 takes images of 32x32 or 28x28, got 30x30"));
  EXPECT_THAT(message("lenet5", {.height = 28, .width = 32}), HasSubstr("got 28x32"));
  EXPECT_THAT(message("airbench94", {.height = 64, .width = 32}), HasSubstr("got 64x32"));
  EXPECT_THAT(message("resnet9", {.height = 4, .width = 32}), HasSubstr("got 4x32"));
  EXPECT_THAT(message("resnet9", {.classes = 0}), HasSubstr("0 classes"));
}

}  // namespace
}  // namespace millrace
