#include "pipeline/training/step_check.h"

#include <atomic>
#include <gmock/gmock.h>

#include "pipeline/training/machine_check.h"
#include "tensor/device_memory.h"
#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

/// A network whose scores are made larger by a factor, which a test may make depend on anything.
struct Scaled : SmallNet {
  explicit Scaled(std::function<double(const Tensor& images)> factor) : factor_(std::move(factor)) {}
  Variable forward(const Variable& image) override {
    return SmallNet::forward(image) * factor_(image.data());
  }
  std::function<double(const Tensor& images)> factor_;
};

StepCheck scaled(const std::function<double(const Tensor& images)>& factor) {
  return {.make_module = [factor] { return std::make_unique<Scaled>(factor); }};
}

const StepCheck kSmall{.make_module = make_small_net};

TEST(StepCheck, AStepInAnotherTypeIsWithinItsBound) {
  if (!cpu::has_bf16()) {
    GTEST_SKIP() << "this processor has no bf16";
  }
  const StepDifference good = compare_with_cpu(kSmall, kCpu, DType::bf16);
  EXPECT_TRUE(good.within()) << good.to_string();
  EXPECT_GT(good.part, 1e-4) << "bf16 rounds";
  const StepDifference bad = compare_with_cpu(
      scaled([](const Tensor& images) { return images.dtype() == DType::bf16 ? 2 : 1; }), kCpu, DType::bf16);
  EXPECT_FALSE(bad.within()) << bad.to_string();
  const StepDifference none =
      compare_with_cpu(scaled([](const Tensor& images) { return images.dtype() == DType::bf16 ? NAN : 1; }),
                       kCpu, DType::bf16);
  EXPECT_FALSE(none.within()) << none.to_string();
}

TEST(StepCheck, TheSameStepDiffersInNothing) {
  const StepDifference same = compare_with_cpu(kSmall, kCpu, DType::f32);
  EXPECT_EQ(same.part, 0) << same.to_string();
  // A scale that only the second of the two networks has.
  std::atomic<int> made = 0;
  const StepCheck differs{.make_module = [&] {
    const double factor = ++made == 2 ? 1.05 : 1;
    return std::make_unique<Scaled>([factor](const Tensor&) { return factor; });
  }};
  const StepDifference found = compare_with_cpu(differs, kCpu, DType::f32);
  EXPECT_FALSE(found.within()) << found.to_string();
}

TEST(StepCheck, TheLossFallsAsTheGradientsSay) {
  for (const auto& name : {"lenet5", "resnet20", "airbench94"}) {
    const StepDifference good =
        compare_with_slope({.make_module = [&] { return nn::make_model(name); }}, kCpu);
    EXPECT_TRUE(good.within()) << name << ": " << good.to_string();
  }
  // Gradients that are half of what they should be: the other half of the loss has none.
  const StepCheck halved{.make_module = [] { return nn::make_model("lenet5"); },
                         .loss =
                             [](nn::Module& net, const Batch& batch) {
                               const Variable loss = sum_of_losses(net, batch);
                               return loss * 0.5 + loss.detach() * 0.5;
                             }};
  const StepDifference bad = compare_with_slope(halved, kCpu);
  EXPECT_FALSE(bad.within()) << bad.to_string();
}

TEST(StepCheck, HashesOfReplicasAreEqualUnlessReplicasDiffer) {
  const std::vector<Device> cpu{kCpu};
  const std::vector<int> replicas{1, 2, 4};
  const std::vector<std::string> equal = hashes_of_replicas(kSmall, cpu, DType::f32, replicas);
  EXPECT_THAT(equal, Each(equal[0]));
  std::atomic<int> made = 0;
  const StepCheck differing{.make_module = [&] {
    const double factor = 1 + 1e-3 * made++;
    return std::make_unique<Scaled>([factor](const Tensor&) { return factor; });
  }};
  const std::vector<std::string> other = hashes_of_replicas(differing, cpu, DType::f32, replicas);
  EXPECT_NE(other[1], other[0]);
  EXPECT_EQ(made, 1 + 2 + 4) << "a network for each replica";
}

TEST(StepCheck, RandomNumbersOfTheCallerStayAsTheyAre) {
  nn::manual_seed(7);
  const std::uint64_t expected = nn::default_generator().next();
  nn::manual_seed(7);
  compare_with_cpu(kSmall, kCpu, DType::f32);
  check_first_training(kSmall, {});
  EXPECT_EQ(nn::default_generator().next(), expected);
}

TEST(MachineCheck, TellsOfEachCheckAndPasses) {
  std::vector<std::string> begun, ended;
  const std::vector<CheckResult> results =
      check_machine({.models = {"lenet5"},
                     .begins = [&](const std::string& name) { begun.push_back(name); },
                     .ends = [&](const CheckResult& result) { ended.push_back(result.name); }});
  EXPECT_EQ(begun, ended);
  ASSERT_EQ(results.size(), begun.size());
  for (const CheckResult& result : results) {
    EXPECT_TRUE(result.passed) << result.name << ": " << result.found;
  }
}

/// A network that this library lacks throws: that check fails, and the others go on.
TEST(MachineCheck, AFailureStopsNoOtherCheck) {
  const std::vector<CheckResult> results = check_machine({.models = {"no-such-network", "lenet5"}});
  for (const CheckResult& result : results) {
    const bool fails = result.name.starts_with("no-such-network");
    EXPECT_NE(result.passed, fails) << result.name << ": " << result.found;
    if (fails) {
      EXPECT_THAT(result.found, HasSubstr("no-such-network"));
    }
  }
}

}  // namespace
}  // namespace millrace
