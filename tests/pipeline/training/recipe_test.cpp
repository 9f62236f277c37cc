#include "pipeline/training/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nn/init.h"
#include "pipeline/training/whitening.h"
#include "tests/nn/golden.h"
#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kImages = 24, kBatch = 8, kPixels = 3 * 32 * 32;

/// The images and labels of scripts/make-goldens.
class GoldenImages final : public Dataset {
 public:
  GoldenImages() {
    golden::Values values("recipe/images");
    for (std::byte& byte : bytes_) {
      byte = static_cast<std::byte>((values.next() + 1) * 128);
    }
  }
  std::int64_t size() const override { return kImages; }
  const DatasetInfo& info() const override { return info_; }
  Sample read(std::int64_t index, std::vector<std::byte>&) const override {
    return {.bytes = std::span(bytes_).subspan(static_cast<std::size_t>(index * kPixels), kPixels),
            .encoding = Encoding::raw_chw,
            .height = 32,
            .width = 32,
            .channels = 3,
            .label = labels_.data<std::int64_t>()[index]};
  }
  std::string describe(std::int64_t index) const override { return fmt::format("image {}", index); }

 private:
  std::vector<std::byte> bytes_ = std::vector<std::byte>(kImages * kPixels);
  Tensor labels_ = golden::labels("recipe/labels", kImages, 10);
  DatasetInfo info_{.height = 32, .width = 32, .channels = 3};
};

std::unique_ptr<nn::Module> golden_net() {
  auto net = nn::make_model("airbench94");
  golden::fill(*net, "recipe");
  for (auto& [name, parameter] : net->named_parameters()) {
    if (name.starts_with("groups") && parameter.dim() == 4) {
      nn::init_dirac(parameter.data());
    }
  }
  return net;
}

/// The recipe for batches of kBatch, whose whitening's bias is trained for one epoch: rates for summed losses
/// go with the batch.
Recipe golden_recipe(const std::string& name) {
  Recipe recipe = find_recipe(name);
  const double part = static_cast<double>(kBatch) / static_cast<double>(recipe.batch_size);
  const auto scale = [part](nn::OptimizerOptions& options) {
    if (auto* sgd = std::get_if<nn::SgdOptions>(&options)) {
      sgd->learning_rate *= part;
    }
  };
  scale(recipe.optimizer);
  for (RecipeGroup& group : recipe.groups) {
    if (group.optimizer) {
      scale(*group.optimizer);
    }
    group.epochs /= 3;
  }
  recipe.batch_size = kBatch;
  recipe.epochs = 2.3;  // of 3 steps: 7
  recipe.transforms = "normalize";
  return recipe;
}

/// As in parity_test: at most twice what PyTorch's own f32 errs, for this tensor or for its kind.
void expect_close(const nn::StateDict& found, const nlohmann::json& golden, const std::string& name) {
  const auto kind = [](const std::string& key) { return key.substr(key.rfind('.')); };
  std::map<std::string, std::vector<double>> errors;
  for (const auto& [key, entry] : golden["tensors"].items()) {
    errors[kind(key)].push_back(entry["error"]);
  }
  for (const auto& [key, tensor] : found) {
    if (!is_floating(tensor.dtype()) || key == "whiten.weight") {
      continue;
    }
    const auto& entry = golden["tensors"][key];
    const double usual = golden::root_mean_square(errors[kind(key)]);
    EXPECT_LE(golden::error(tensor, entry, name + "/" + key),
              2 * std::max(entry["error"].get<double>(), usual))
        << key;
  }
}

/// All steps against those of PyTorch by the published script.
void expect_follows_script(const std::string& name) {
  const auto golden = golden::read("recipes")[name];
  const auto data = std::make_shared<GoldenImages>();
  const Recipe recipe = golden_recipe(name);
  LoaderOptions loading{.order = {.kind = Order::sequential}};
  recipe.apply(loading);
  Loader loader(data, loading);
  TrainerOptions options{.replicas = 1, .shards = 1};
  recipe.apply(options, loader.steps_per_epoch());
  Trainer trainer{golden_net, recipe.optimizer, options};
  recipe.arrange(trainer, loader.steps_per_epoch());
  recipe.begin(trainer, data, loading);
  auto& whiten = dynamic_cast<nn::Conv2d&>(*trainer.module().children()[0].second);
  const Tensor filters = whiten.weight.data().view({24, 12});
  const Tensor squares = matmul(filters.t().contiguous(), filters);  // the same for any signs and order
  EXPECT_LT(
      golden::error(squares, golden::read("recipes")["whitening"]["tensors"]["squares"], "recipe/squares"),
      1e-5);
  whiten.weight.data().copy_(golden_net()->named_parameters()[0].second.data());

  std::vector<double> loss_errors;
  while (trainer.steps() < recipe.steps(loader.steps_per_epoch())) {
    for (const Batch& batch : loader.epoch(trainer.steps() / loader.steps_per_epoch())) {
      const double expected = golden["losses"][loss_errors.size()];
      loss_errors.push_back((trainer.step(batch, recipe.loss()).loss - expected) / expected);
      if (trainer.steps() == recipe.steps(loader.steps_per_epoch())) {
        break;
      }
    }
  }
  trainer.finish();
  ASSERT_EQ(loss_errors.size(), golden["losses"].size());
  EXPECT_LE(golden::root_mean_square(loss_errors),
            2 * golden::root_mean_square(golden["loss_errors"].get<std::vector<double>>()));
  expect_close(nn::state_dict(trainer.module()), golden, name);
}

TEST(Recipe, Airbench94TakesTheStepsOfItsScript) { expect_follows_script("airbench94"); }
TEST(Recipe, Airbench94MuonTakesTheStepsOfItsScript) { expect_follows_script("airbench94-muon"); }

TEST(Recipe, EndsInTheMiddleOfAnEpoch) {
  EXPECT_EQ(find_recipe("airbench94").steps(48), 476);  // as the script has it
  EXPECT_EQ((Recipe{.epochs = 3}).steps(7), 21);
  EXPECT_EQ((Recipe{.epochs = 0.1}).steps(30), 3) << "although 0.1 * 30 is a little more than 3";
  EXPECT_EQ((Recipe{.epochs = 0.001}).steps(1), 1);
}

TEST(Recipe, UnknownOnesAndOtherNetworksAreNamed) {
  const auto error = [](const auto& job) -> std::string {
    try {
      job();
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(error([] { find_recipe("airbench95"); }),
              testing::AllOf(HasSubstr("airbench95"), HasSubstr("airbench94-muon"), HasSubstr("resnet18")));
  EXPECT_THAT(error([] {
                Trainer trainer{make_small_net, nn::SgdOptions{}, {.replicas = 1}};
                find_recipe("airbench94").begin(trainer, open_dataset("synthetic:10"), {});
              }),
              HasSubstr("no layer 'whiten'"));
}

std::vector<double> values(std::string_view words, std::int64_t steps_per_epoch, std::int64_t steps) {
  std::vector<double> found;
  const nn::Schedule schedule = make_schedule(words, steps_per_epoch, steps);
  for (std::int64_t step = 0; step < steps; ++step) {
    found.push_back(schedule(step));
  }
  return found;
}

TEST(MakeSchedule, ReadsEachKind) {
  using testing::ElementsAre;
  EXPECT_THAT(values("constant", 2, 3), ElementsAre(1, 1, 1));
  EXPECT_THAT(values("linear", 2, 4), ElementsAre(1, 0.75, 0.5, 0.25));
  EXPECT_THAT(values("step:1:0.5", 2, 5), ElementsAre(1, 1, 0.5, 0.5, 0.25));
  EXPECT_THAT(values("triangle:0.5:0.3:0.25", 2, 8),
              ElementsAre(0.5, 0.75, 1, 0.875, 0.75, 0.625, 0.5, 0.375));
  EXPECT_THAT(values("triangle:0.5:0:0", 2, 4), ElementsAre(1, 0.75, 0.5, 0.25));
  EXPECT_NEAR(values("cosine", 2, 4)[2], 0.5, 1e-9);
}

TEST(MakeSchedule, MistakesAreNamed) {
  for (const char* words : {"", "wavy", "linear:1", "triangle", "triangle:1:2:3", "triangle:0.2:0.23",
                            "triangle:-1:0.2:0", "triangle:a:b:c", "triangle:nan:0.2:0", "step:1:inf",
                            "step:0:0.1", "step:1.5:0.1", "step:9223372036854775807:0.1"}) {
    try {
      make_schedule(words, 2, 4);
      ADD_FAILURE() << words;
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(), testing::AllOf(HasSubstr(words), HasSubstr("triangle:START:PEAK:END")));
    }
  }
}

}  // namespace
}  // namespace millrace
