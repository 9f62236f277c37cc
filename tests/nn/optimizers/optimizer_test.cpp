#include "nn/optimizers/optimizer.h"

#include <cstring>
#include <gmock/gmock.h>

#include "nn/layers/containers.h"
#include "nn/layers/linear.h"
#include "nn/optimizers/lookahead.h"
#include "nn/optimizers/muon.h"
#include "tensor/ops.h"
#include "tests/nn/golden.h"

namespace millrace {
namespace {

using nn::Optimizer;
using nn::OptimizerOptions;
using nn::Sgd;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

/// Two parameters, which the goldens call weight and bias whatever their shapes.
struct Pair : nn::Module {
  Pair(const Shape& first, const Shape& second)
      : weight(add_parameter("weight", zeros(first))), bias(add_parameter("bias", zeros(second))) {}
  Variable forward(const Variable& x) override { return x; }
  Variable weight, bias;
};

OptimizerOptions options_of(const std::string& kind, const nlohmann::json& from) {
  const auto number = [&](const char* name, double otherwise = 0) { return from.value(name, otherwise); };
  const auto betas = from.value("betas", std::array{0.9, 0.999});
  if (kind == "sgd") {
    return nn::SgdOptions{.learning_rate = number("lr"),
                          .momentum = number("momentum"),
                          .weight_decay = number("weight_decay"),
                          .nesterov = from.value("nesterov", false)};
  }
  if (kind == "adam") {
    return nn::AdamOptions{.learning_rate = number("lr"),
                           .betas = betas,
                           .eps = number("eps", 1e-8),
                           .weight_decay = number("weight_decay")};
  }
  if (kind == "adamw") {
    return nn::AdamWOptions{.learning_rate = number("lr"),
                            .betas = betas,
                            .eps = number("eps", 1e-8),
                            .weight_decay = number("weight_decay", 0.01)};
  }
  if (kind == "rmsprop") {
    return nn::RmsPropOptions{.learning_rate = number("lr"),
                              .alpha = number("alpha", 0.99),
                              .eps = number("eps", 1e-8),
                              .momentum = number("momentum"),
                              .centered = from.value("centered", false),
                              .weight_decay = number("weight_decay")};
  }
  EXPECT_EQ(kind, "muon");
  return nn::MuonOptions{.learning_rate = number("lr"),
                         .momentum = number("momentum"),
                         .nesterov = from.value("nesterov", false),
                         .newton_schulz_steps = from.value("newton_schulz_steps", 0),
                         .normalize_weights = from.value("normalize_weights", false)};
}

/// Every step of a trajectory of scripts/make-goldens. The gradients come four times too large: the scale
/// takes that back.
void expect_follows(const std::string& kind, const std::string& name, const nlohmann::json& golden) {
  const bool is_muon = kind == "muon";
  Pair net(is_muon ? Shape{6, 2, 3, 2} : Shape{4, 5}, is_muon ? Shape{7, 3} : Shape{4});
  const std::string prefix = kind + "/" + name;
  const auto value = [&](const char* of, const std::string& suffix = "") {
    return golden::tensor(prefix + "/" + of + suffix, (of[0] == 'w' ? net.weight : net.bias).shape());
  };
  net.weight.data().copy_(value("weight"));
  net.bias.data().copy_(value("bias"));
  const nn::Schedule schedule =
      name == "schedule" ? nn::piecewise_linear_schedule({{0, 1}, {6, 0}}) : nn::Schedule();
  Optimizer optimizer(net, options_of(kind, golden["options"]), schedule);
  optimizer.group("bias", options_of(kind, golden["bias_options"]));
  const auto& steps = golden["steps"];
  ASSERT_EQ(steps.size(), 6U);
  for (std::size_t step = 0; step < steps.size(); ++step) {
    const std::string at = fmt::format("/{}", step);
    optimizer.zero_grad();
    const Variable sums =
        sum(net.weight * value("weight", ".grad" + at)) + sum(net.bias * value("bias", ".grad" + at));
    (sums * 4).backward();
    optimizer.step({.number = optimizer.steps(), .gradient_scale = 0.25});
    EXPECT_LE(golden::error(net.weight.data(), steps[step]["weight"], prefix + "/weight"), 1e-6)
        << prefix << at;
    EXPECT_LE(golden::error(net.bias.data(), steps[step]["bias"], prefix + "/bias"), 1e-6) << prefix << at;
  }
  EXPECT_EQ(optimizer.steps(), 6);
}

TEST(Optimizer, SgdFollowsPyTorchStepByStep) {
  const auto goldens = golden::read("sgd");
  ASSERT_EQ(goldens.size(), 6U);
  for (const auto& [name, golden] : goldens.items()) {
    expect_follows("sgd", name, golden);
  }
}

TEST(Optimizer, TheOthersFollowPyTorchAndMuonItsFormulaStepByStep) {
  const auto goldens = golden::read("optimizers");
  ASSERT_EQ(goldens.size(), 4U);
  for (const auto& [kind, cases] : goldens.items()) {
    ASSERT_GE(cases.size(), 4U);
    for (const auto& [name, golden] : cases.items()) {
      expect_follows(kind, name, golden);
    }
  }
}

/// One of each kind and form.
const std::vector<OptimizerOptions> kAll = {
    nn::SgdOptions{.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01, .nesterov = true},
    nn::AdamOptions{.learning_rate = 0.1, .weight_decay = 0.01},
    nn::AdamWOptions{.learning_rate = 0.1},
    nn::RmsPropOptions{.learning_rate = 0.1, .momentum = 0.9, .centered = true},
    nn::RmsPropOptions{.learning_rate = 0.1, .weight_decay = 0.01},
    nn::MuonOptions{.normalize_weights = true},
};

void draw_gradients(Optimizer& optimizer, Generator& random) {
  optimizer.flat().gradients().copy_(randn(optimizer.flat().gradients().shape(), random));
}

void expect_same_bits(const Tensor& a, const Tensor& b, const std::string& what) {
  ASSERT_EQ(a.shape(), b.shape());
  EXPECT_EQ(
      std::memcmp(a.data<float>(), b.data<float>(), static_cast<std::size_t>(a.numel()) * sizeof(float)), 0)
      << what;
}

TEST(Optimizer, PartsMakeTheWholeStepBitForBit) {
  const auto train = [](const OptimizerOptions& options, const std::vector<std::int64_t>& cuts) {
    nn::manual_seed(3);
    Generator random(4);
    nn::Linear layer(37, 5);  // 5 biases and 185 weights, each from a place that is a multiple of 16
    Optimizer optimizer(layer, options, nn::step_schedule(2, 0.7));
    optimizer.group("bias", nn::SgdOptions{.learning_rate = 0.3, .momentum = 0.5});
    for (int step = 0; step < 3; ++step) {
      const Tensor drawn = randn({208}, random);
      optimizer.flat().gradients().fill_(NAN);  // none may be used before its part is there
      for (std::size_t i = 1; i < cuts.size(); ++i) {
        const std::int64_t count = cuts[i] - cuts[i - 1];
        optimizer.flat().gradients().narrow(0, cuts[i - 1], count).copy_(drawn.narrow(0, cuts[i - 1], count));
        optimizer.step_part(cuts[i - 1], cuts[i], {.number = step, .gradient_scale = 0.25});
      }
    }
    EXPECT_EQ(optimizer.steps(), 3);
    return optimizer.flat().weights();
  };
  for (const OptimizerOptions& options : kAll) {
    const Tensor whole = train(options, {0, 208});
    ASSERT_EQ(whole.numel(), 208);
    for (const std::vector<std::int64_t>& cuts : {std::vector<std::int64_t>{0, 16, 208},
                                                  {0, 5, 21, 150, 208},
                                                  {0, 16, 201, 205, 208},
                                                  {0, 207, 208}}) {
      expect_same_bits(train(options, cuts), whole, nn::describe(options));
    }
  }
}

TEST(Optimizer, GoesOnFromItsState) {
  for (const OptimizerOptions& options : kAll) {
    nn::manual_seed(3);
    Generator random(4);
    Pair net({3, 4}, {5, 2}), other({3, 4}, {5, 2});
    nn::FlatParameters flat(net), other_flat(other);
    Optimizer optimizer(flat, options, nn::step_schedule(1, 0.9));
    for (int step = 0; step < 3; ++step) {
      draw_gradients(optimizer, random);
      optimizer.step();
    }
    Optimizer resumed(other_flat, options, nn::step_schedule(1, 0.9));
    nn::load_state_dict(other, nn::state_dict(net));
    resumed.load_state_dict(optimizer.state_dict());
    EXPECT_EQ(resumed.steps(), 3);
    for (int step = 0; step < 2; ++step) {
      draw_gradients(optimizer, random);
      resumed.flat().gradients().copy_(optimizer.flat().gradients());
      optimizer.step();
      resumed.step();
    }
    expect_same_bits(other.weight.data(), net.weight.data(), nn::describe(options));
    expect_same_bits(other.bias.data(), net.bias.data(), nn::describe(options));
  }
}

TEST(Optimizer, AFrozenParameterStaysAsItIs) {
  for (const OptimizerOptions& options : kAll) {
    nn::manual_seed(3);
    Generator random(4);
    nn::Sequential net;
    for (int i = 0; i < 3; ++i) {
      net.emplace<nn::Linear>(4, 5, nn::LinearOptions{.bias = false});
    }
    nn::FlatParameters flat(net);
    Optimizer optimizer(flat, options);
    nn::Lookahead lookahead(flat, net, {.every = 2, .decay = [](std::int64_t) { return 0.5; }});
    const auto step = [&](int from) {
      for (int i = from; i < from + 3; ++i) {
        draw_gradients(optimizer, random);
        optimizer.step();
        lookahead.after_step(i + 1);
      }
    };
    step(0);
    std::vector<Variable> parameters = net.parameters();
    for (std::size_t frozen = 0; frozen < 3; ++frozen) {
      parameters[frozen].set_requires_grad(false);
      std::vector<Tensor> before;
      for (const Variable& parameter : parameters) {
        before.push_back(parameter.data().clone());
      }
      step(3 + 3 * static_cast<int>(frozen));
      for (std::size_t i = 0; i < 3; ++i) {
        const Tensor& now = parameters[i].data();
        EXPECT_EQ(std::memcmp(now.raw(), before[i].raw(), now.bytes()) == 0, i == frozen)
            << nn::describe(options) << ", parameter " << i;
      }
      parameters[frozen].set_requires_grad(true);
    }
  }
}

/// As in PyTorch: with a constant gradient each of Adam's updates is one learning rate, whenever it begins.
TEST(Optimizer, AdamDoesNotCountStepsOfAFrozenParameter) {
  for (const OptimizerOptions& options :
       {OptimizerOptions(nn::AdamOptions{.learning_rate = 0.1}),
        OptimizerOptions(nn::AdamWOptions{.learning_rate = 0.1, .weight_decay = 0})}) {
    Pair net({16}, {16});
    nn::FlatParameters flat(net);
    Optimizer optimizer(flat, options);
    flat.gradients().fill_(1);
    const auto step = [&](std::int64_t number) {  // in parts, one of which ends within a parameter
      optimizer.step_part(0, 24, {.number = number});
      optimizer.step_part(24, 32, {.number = number});
    };
    step(0);
    net.weight.set_requires_grad(false);
    for (int i = 1; i < 1000; ++i) {
      step(i);
    }
    net.weight.set_requires_grad(true);
    Pair other({16}, {16});
    nn::FlatParameters other_flat(other);
    Optimizer resumed(other_flat, options);
    resumed.load_state_dict(optimizer.state_dict());
    nn::load_state_dict(other, nn::state_dict(net));
    other_flat.gradients().fill_(1);
    step(1000);
    resumed.step({.number = 1000});
    EXPECT_NEAR(net.weight.data().at({3}), -0.2, 1e-4) << nn::describe(options);
    EXPECT_NEAR(net.bias.data().at({3}), -0.1 * 1001, 0.01) << nn::describe(options);
    expect_same_bits(other.weight.data(), net.weight.data(), nn::describe(options));
    nn::StateDict older = optimizer.state_dict();
    std::erase_if(older, [](const auto& entry) { return entry.first == "frozen_steps"; });
    resumed.load_state_dict(older);
    EXPECT_EQ(resumed.frozen_steps().at({0}), 0);
  }
}

TEST(Optimizer, AParameterThatWasFrozenWhenItWasMadeIsNamed) {
  nn::Linear layer(4, 5);
  layer.bias.set_requires_grad(false);
  Sgd optimizer(layer, {.learning_rate = 0.1});
  optimizer.zero_grad();
  optimizer.step();
  layer.bias.set_requires_grad(true);
  EXPECT_THROW(optimizer.step(), InputError);
  try {
    optimizer.zero_grad();
    ADD_FAILURE() << "nothing was said";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("parameter bias was frozen"));
  }
}

TEST(Optimizer, AtARateOfZeroNothingMoves) {
  for (const OptimizerOptions& options : kAll) {
    Generator random(4);
    Pair net({3, 4}, {5, 2});
    net.weight.data().copy_(randn({3, 4}, random));
    nn::FlatParameters flat(net);
    Optimizer optimizer(flat, options);
    optimizer.group("weight", options, nn::piecewise_linear_schedule({{0, 1}, {2, 0}}));
    Tensor frozen;
    for (int step = 0; step < 4; ++step) {
      draw_gradients(optimizer, random);
      const Tensor bias = net.bias.data().clone();
      optimizer.step();
      EXPECT_FALSE(all_close(net.bias.data(), bias)) << nn::describe(options);
      if (step == 1) {
        frozen = net.weight.data().clone();
      }
    }
    EXPECT_FALSE(all_close(frozen, zeros({3, 4})));
    expect_same_bits(net.weight.data(), frozen, nn::describe(options));
  }
}

TEST(Optimizer, AStepThatIsSkippedChangesNothing) {
  for (const OptimizerOptions& options : kAll) {
    Generator random(4);
    Pair net({3, 4}, {5, 2}), scaled({3, 4}, {5, 2});
    nn::FlatParameters flat(net), other_flat(scaled);
    Optimizer optimizer(flat, options), other(other_flat, options);
    for (auto* weights : {&optimizer.flat().weights(), &other.flat().weights()}) {
      weights->fill_(0.5);
    }
    draw_gradients(optimizer, random);
    other.flat().gradients().copy_(optimizer.flat().gradients() * 0.25);
    optimizer.step({.number = 0, .gradient_scale = 0.5, .control = tensor({1, 0.25})});
    other.step({.number = 0, .gradient_scale = 0.5});
    expect_same_bits(optimizer.flat().weights(), other.flat().weights(), nn::describe(options));
    optimizer.flat().gradients().zero_();  // as the loss scale leaves them
    optimizer.step({.number = 1, .control = tensor({0, 0.25})});
    expect_same_bits(optimizer.flat().weights(), other.flat().weights(), nn::describe(options));
    for (const auto& [name, buffer] : optimizer.buffers()) {
      expect_same_bits(buffer, other.buffers().at(name), name);
    }
    EXPECT_EQ(optimizer.steps(), 2);
  }
}

TEST(Optimizer, KeepsTheStateThatItsGroupsNeed) {
  const auto names = [](const nn::StateDict& state) {
    std::vector<std::string> found;
    for (const auto& [name, tensor] : state) {
      found.push_back(fmt::format("{} {}", name, tensor.shape()));
    }
    return found;
  };
  Pair net({3, 4}, {5});
  Optimizer optimizer(net, nn::MuonOptions{});
  optimizer.group("bias", nn::RmsPropOptions{.centered = true});
  EXPECT_THAT(names(optimizer.state_dict()),
              testing::ElementsAre("bias.square_avg [5]", "bias.grad_avg [5]",
                                   "weight.momentum_buffer [3, 4]", "step []", "frozen_steps [2]"));
  optimizer.group("bias", nn::AdamOptions{});
  EXPECT_THAT(names(optimizer.state_dict()),
              testing::ElementsAre("bias.exp_avg [5]", "bias.exp_avg_sq [5]", "weight.momentum_buffer [3, 4]",
                                   "step []", "frozen_steps [2]"));
  EXPECT_EQ(optimizer.buffers().size(), 3U);
  EXPECT_EQ(optimizer.describe(),
            "Adam, learning rate 0.001, first beta 0.9, second beta 0.999, eps 1e-08, weight decay 0 of bias "
            "to bias; "
            "Muon, learning rate 0.02, momentum 0.95, Newton-Schulz steps 5, nesterov of weight to weight");
  optimizer.group("weight", nn::SgdOptions{}, nn::cosine_schedule(10));
  EXPECT_THAT(optimizer.describe(), HasSubstr("weight decay 0, schedule of its own of weight to weight"));
}

TEST(Optimizer, RefusesWrongOptions) {
  nn::Linear layer(2, 2);
  const auto message = [&](const OptimizerOptions& options) -> std::string {
    try {
      Optimizer(layer, options).step();
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message(nn::SgdOptions{.learning_rate = -1}),
            "SGD: got a learning rate of -1, expected a number from 0 up");
  EXPECT_EQ(message(nn::SgdOptions{.nesterov = true}), "SGD: nesterov needs a momentum above 0, got 0");
  EXPECT_EQ(message(nn::AdamWOptions{.betas = {0.9, 1}}),
            "AdamW: got a second beta of 1, expected a number from 0 up and below 1");
  EXPECT_THAT(message(nn::RmsPropOptions{.alpha = NAN}), HasSubstr("RMSProp: got a alpha of nan"));
  EXPECT_THAT(message(nn::MuonOptions{.newton_schulz_steps = -1}),
              HasSubstr("got a Newton-Schulz steps of -1"));
  EXPECT_EQ(message(nn::MuonOptions{}),
            "Muon: bias is [2], expected filters or matrices; give it to another optimizer with group");
  Sgd sgd(layer, {});
  try {
    sgd.group("biass", nn::SgdOptions{});
    FAIL();
  } catch (const InputError& error) {
    EXPECT_STREQ(
        error.what(),
        "optimizer: no trainable parameter has \"biass\" in its name; the first is \"weight\", the last "
        "\"bias\"");
  }
}

TEST(Optimizer, KindsAreFoundByTheirNamesAndOthersRefused) {
  EXPECT_EQ(nn::find_optimizer("SGD"), OptimizerOptions(nn::SgdOptions{}));
  EXPECT_EQ(nn::find_optimizer("rmsprop"), OptimizerOptions(nn::RmsPropOptions{}));
  ASSERT_EQ(nn::optimizer_kinds().size(), std::variant_size_v<OptimizerOptions>);
  for (const OptimizerOptions& options : nn::optimizer_kinds()) {
    const std::string description = nn::describe(options);
    EXPECT_EQ(nn::find_optimizer(description.substr(0, description.find(','))), options);
  }
  for (const char* const unknown : {"Lion", "", "Ada", "AdamW2"}) {
    try {
      nn::find_optimizer(unknown);
      FAIL() << unknown;
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(), StartsWith(fmt::format("optimizer: got the kind '{}', expected one of SGD, "
                                                       "Adam, AdamW, RMSProp, Muon",
                                                       unknown)));
      EXPECT_THAT(error.what(), EndsWith("; choose one of these"));
    }
  }
}

TEST(Muon, OrthogonalizesMatricesWideAndTall) {
  Generator random(5);
  for (const Shape& shape : {Shape{8, 20}, Shape{20, 8}, Shape{6, 6}, Shape{1, 9}}) {
    const Tensor x = nn::orthogonalized(randn(shape, random), 10);
    const bool is_tall = shape[0] > shape[1];
    const Tensor square = is_tall ? matmul(x.t(), x) : matmul(x, x.t());
    for (std::int64_t i = 0; i < square.size(0); ++i) {
      EXPECT_NEAR(square.at({i, i}), 1, 0.5) << shape;
    }
  }
  EXPECT_TRUE(all_close(nn::orthogonalized(zeros({3, 4}), 5), zeros({3, 4})));
}

TEST(Sgd, AParameterWithoutAGradientOnlyDecays) {
  nn::Linear used(2, 2), unused(2, 2);
  struct Both : nn::Module {
    Both(nn::Linear& a, nn::Linear& b) {
      add("a", a);
      add("b", b);
    }
    Variable forward(const Variable& x) override { return x; }
  } both(used, unused);
  Sgd sgd(both, {.learning_rate = 0.5, .weight_decay = 0.1});
  const Tensor before = unused.weight.data().clone();
  sum(used(ones({1, 2}))).backward();
  sum(unused(ones({1, 2}))).backward();
  sgd.zero_grad();
  sum(used(ones({1, 2}))).backward();
  sgd.step();
  EXPECT_TRUE(all_close(unused.weight.data(), before * 0.95, 1e-6));
}

TEST(Sgd, AStepCountsAsAChangeOfTheWeights) {
  nn::Linear layer(3, 2);
  Sgd sgd(layer, {});
  const Variable x(ones({1, 3}), true);
  const Variable out = sum(layer(x));
  sgd.step();
  EXPECT_THROW(out.backward(), InputError);  // the input's gradient would be of other weights
}

TEST(Schedule, FollowsItsFormula) {
  EXPECT_EQ(nn::constant_schedule()(1000), 1);
  const auto steps = nn::step_schedule(10, 0.1);
  EXPECT_DOUBLE_EQ(steps(0), 1);
  EXPECT_DOUBLE_EQ(steps(9), 1);
  EXPECT_DOUBLE_EQ(steps(10), 0.1);
  EXPECT_NEAR(steps(29), 0.01, 1e-15);
  const auto cosine = nn::cosine_schedule(100, 0.2);
  EXPECT_DOUBLE_EQ(cosine(0), 1);
  EXPECT_DOUBLE_EQ(cosine(50), 0.6);
  EXPECT_DOUBLE_EQ(cosine(100), 0.2);
  EXPECT_DOUBLE_EQ(cosine(500), 0.2);
  const auto linear = nn::piecewise_linear_schedule({{10, 0.5}, {20, 1}, {40, 0}});
  EXPECT_DOUBLE_EQ(linear(0), 0.5);
  EXPECT_DOUBLE_EQ(linear(15), 0.75);
  EXPECT_DOUBLE_EQ(linear(20), 1);
  EXPECT_DOUBLE_EQ(linear(35), 0.25);
  EXPECT_DOUBLE_EQ(linear(41), 0);
  const auto warm = nn::warm_up(4, nn::step_schedule(2, 0.5));
  EXPECT_DOUBLE_EQ(warm(0), 0.2);
  EXPECT_DOUBLE_EQ(warm(3), 0.8 * 0.5);
  EXPECT_DOUBLE_EQ(warm(4), 0.25);
  EXPECT_THROW(nn::piecewise_linear_schedule({{5, 1}, {5, 0}}), InputError);
  EXPECT_THROW(nn::piecewise_linear_schedule({}), InputError);
  EXPECT_THROW(nn::cosine_schedule(0), InputError);
  EXPECT_THROW(nn::step_schedule(0, 1), InputError);
}

}  // namespace
}  // namespace millrace
