// The comparison of GPUs' steps with the CPU's, on emulated GPUs.
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <gmock/gmock.h>

#include "dataio/random_images.h"
#include "emulator.h"
#include "pipeline/training/machine_check.h"
#include "pipeline/training/step_check.h"
#include "tensor/device_memory.h"
#include "tests/base/temporary_folder.h"
#include "tests/cuda_libraries/fake_nccl.h"
#include "tests/distributed/processes/process_threads.h"
#include "tests/pipeline/emulated/gpus.h"
#include "tests/pipeline/training/short_form.h"
#include "tests/pipeline/training/small_net.h"
#include "tests/tensor/gpu/bounds.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// As a kernel that is wrong on one GPU.
struct WrongOnGpu : SmallNet {
  explicit WrongOnGpu(int gpu) : gpu_(gpu) {}
  Variable forward(const Variable& image) override {
    const Variable scores = SmallNet::forward(image);
    return image.device() == Device{Device::Kind::cuda, gpu_} ? scores * 3.0 : scores;
  }
  int gpu_;
};

class EmulatedFirstTraining : public testing::Test {
 protected:
  EmulatedFirstTraining() { setenv("XDG_CACHE_HOME", cache_.path().c_str(), 1); }
  ~EmulatedFirstTraining() override { unsetenv("XDG_CACHE_HOME"); }

  std::size_t kept() const {
    const auto folder = std::filesystem::path(cache_.path()) / "millrace" / "checked";
    if (!std::filesystem::exists(folder)) {
      return 0;
    }
    const std::filesystem::directory_iterator files(folder);
    return static_cast<std::size_t>(std::distance(begin(files), end(files)));
  }

  /// One with which it is seen how often steps were compared.
  StepCheck counted() {
    return {.make_module = [this] {
      ++made_;
      return make_small_net();
    }};
  }
  /// Comparisons since the last call: each makes two networks, beside the one that names them.
  int comparisons(const TrainerOptions& options) {
    made_ = 0;
    check_first_training(counted(), options);
    return (made_ - 1) / 2;
  }

  test::TemporaryFolder cache_;
  std::atomic<int> made_ = 0;
};

std::string failure_of(const StepCheck& check, const TrainerOptions& options) {
  try {
    check_first_training(check, options);
  } catch (const MachineError& error) {
    return error.what();
  }
  return "";
}

TEST_F(EmulatedFirstTraining, IsComparedOnceForEachKindOfTraining) {
  TrainerOptions options{.replicas = 1, .devices = gpus(1)};
  EXPECT_EQ(comparisons(options), 1);
  EXPECT_EQ(comparisons(options), 0);
  options.dtype = DType::f16;
  EXPECT_EQ(comparisons(options), 1) << "in another type";
  options.sum_order = SumOrder::engine;
  EXPECT_EQ(comparisons(options), 1) << "with other engines";
  EXPECT_EQ(comparisons(options), 0);
  EXPECT_EQ(kept(), 3);
  made_ = 0;
  StepCheck larger = counted();
  larger.height = larger.width = 33;
  check_first_training(larger, options);
  EXPECT_EQ(made_, 3) << "with images of another size";
  StepCheck other = counted();
  other.make_module = [this] {
    ++made_;
    return nn::make_model("lenet5");
  };
  made_ = 0;
  check_first_training(other, options);
  EXPECT_EQ(made_, 3) << "of another network";
  EXPECT_EQ(comparisons({.replicas = 2, .devices = gpus(2)}), 0) << "the second GPU is of the same kind";
}

TEST_F(EmulatedFirstTraining, ADamagedNoteComparesAgain) {
  const TrainerOptions options{.replicas = 1, .devices = gpus(1)};
  EXPECT_EQ(comparisons(options), 1);
  for (const auto& file :
       std::filesystem::directory_iterator(std::filesystem::path(cache_.path()) / "millrace" / "checked")) {
    std::filesystem::resize_file(file, 10);
  }
  EXPECT_EQ(comparisons(options), 1);
}

TEST_F(EmulatedFirstTraining, AWrongKernelIsRefusedEachTime) {
  const StepCheck wrong{.make_module = [] { return std::make_unique<WrongOnGpu>(0); }};
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (int start = 0; start < 2; ++start) {
      EXPECT_THAT(
          failure_of(wrong, {.replicas = 1, .devices = gpus(1), .dtype = dtype}),
          AllOf(HasSubstr("on cuda:0 is not as the CPU's: differs by"), HasSubstr("nothing was trained"),
                HasSubstr("--device cpu"), HasSubstr("millrace check")));
    }
  }
  EXPECT_EQ(kept(), 0);
}

TEST_F(EmulatedFirstTraining, AStepThatFailsIsRefused) {
  emulator::fail("cudaLaunchKernelEx", cudaErrorLaunchFailure, 5);
  EXPECT_THAT(failure_of({.make_module = make_small_net}, {.replicas = 1, .devices = gpus(1)}),
              HasSubstr("could not be compared with the CPU's: "));
  emulator::fail("", cudaSuccess);
  EXPECT_EQ(kept(), 0);
}

TEST_F(EmulatedFirstTraining, ACacheThatCannotBeWrittenIsToldOf) {
  cache_.write("millrace/checked", "a file where the folder would be");
  std::vector<std::string> said;
  check_first_training({.make_module = make_small_net}, {.replicas = 1, .devices = gpus(1)},
                       [&](const std::string& sentence) { said.push_back(sentence); });
  EXPECT_THAT(said,
              AllOf(Contains(HasSubstr("is as the CPU's: differs by")),
                    Contains(HasSubstr("warning: the next training compares a step with the CPU's again"))));
}

TEST_F(EmulatedFirstTraining, OfSeveralProcessesOneComparesForAll) {
  fake_nccl::install();
  made_ = 0;
  EXPECT_THAT(on_process_threads(3, {},
                                 [&](const std::shared_ptr<ProcessGroup>& processes) {
                                   check_first_training(
                                       counted(), {.shards = 4, .processes = processes, .devices = gpus(4)});
                                 }),
              Each(""));
  EXPECT_EQ(made_, 3 + 2) << "one in each to name it, and two steps";
  EXPECT_EQ(kept(), 1);
}

TEST_F(EmulatedFirstTraining, AllProcessesRefuseTogether) {
  fake_nccl::install();
  const auto errors = on_process_threads(3, {}, [&](const std::shared_ptr<ProcessGroup>& processes) {
    check_first_training({.make_module = [] { return std::make_unique<WrongOnGpu>(0); }},
                         {.shards = 4, .processes = processes, .devices = gpus(4)});
  });
  EXPECT_THAT(errors, Each(AllOf(errors[0], HasSubstr("on cuda:0 is not as the CPU's"))));
  EXPECT_EQ(kept(), 0);
}

std::string trained_hash() {
  Loader loader(open_dataset("synthetic:64"),
                {.batch_size = 16, .dtype = DType::u8, .shards = 2, .threads = 1});
  Trainer trainer{make_small_net, kSgd, {.replicas = 2, .shards = 2, .devices = gpus(1)}};
  for (const Batch& batch : loader.epoch(0)) {
    trainer.step(batch, sum_of_losses);
  }
  return trainer.weights_hash();
}

TEST_F(EmulatedFirstTraining, LeavesTheTrainingAsItIs) {
  const std::string expected = trained_hash();
  nn::manual_seed(7);
  const std::uint64_t number = nn::default_generator().next();
  nn::manual_seed(7);
  EXPECT_EQ(comparisons({.replicas = 2, .shards = 2, .devices = gpus(1)}), 1);
  EXPECT_EQ(nn::default_generator().next(), number);
  EXPECT_EQ(trained_hash(), expected);
}

TEST(EmulatedCheck, ChecksGpusBesideTheCpu) {
  fake_nccl::install();
  std::vector<std::string> names;
  for (const CheckResult& result : check_machine({.gpus = gpus(2), .models = {"lenet5"}})) {
    EXPECT_TRUE(result.passed) << result.name << ": " << result.found;
    names.push_back(result.name);
  }
  for (const char* name : {"lenet5, f16 on cuda:0, cuda:1, a step", "lenet5, bf16 on cuda:0, cuda:1, hashes",
                           "checkpoint on cuda:0", "copies of pinned memory, cuda:1", "NCCL's sum"}) {
    EXPECT_THAT(names, Contains(name));
  }
  EXPECT_THAT(fake_nccl::misuses(), IsEmpty());
}

TEST(EmulatedCheck, AGroupThatFailsIsNamed) {
  fake_nccl::install({.fault = fake_nccl::Fault::refuses, .rank = 1, .nth = 3});
  int failed = 0;
  for (const CheckResult& result : check_machine({.gpus = gpus(2), .models = {"lenet5"}})) {
    failed += result.passed ? 0 : 1;
    if (result.name.find("cpu") != std::string::npos) {
      EXPECT_TRUE(result.passed) << result.name << ": " << result.found;
    }
  }
  EXPECT_GT(failed, 0);
  fake_nccl::install();
}

/// Steps on 16 random images in 4 shards.
struct Taken {
  std::string hash;
  std::vector<double> losses;
  nn::StateDict before, after;
};

Taken take(const std::string& model, const std::vector<Device>& devices, DType dtype, int steps) {
  // resnet9 takes long in the emulator, and has no use for larger images here.
  const int side = model == "resnet9" ? 16 : 32;
  Loader loader(
      std::make_shared<RandomImages>(16, RandomImages::Form{.height = side, .width = side}),
      {.batch_size = 16, .dtype = feed_type(devices[0], dtype, "normalize"), .shards = 4, .threads = 1});
  Trainer trainer{[&] { return nn::make_model(model, {.height = side, .width = side}); },
                  nn::SgdOptions{.learning_rate = 0.01, .momentum = 0.9},
                  {.replicas = static_cast<int>(devices.size()),
                   .shards = 4,
                   .devices = devices,
                   .dtype = dtype,
                   .sum_order = SumOrder::tree}};
  Batch batch;
  const auto epoch = loader.epoch(0);
  loader.next(batch);
  Taken taken{.before = trainer.state().weights};
  for (int i = 0; i < steps; ++i) {
    taken.losses.push_back(trainer.step(batch, sum_of_losses).loss);
  }
  taken.hash = trainer.weights_hash();
  taken.after = trainer.state().weights;
  return taken;
}

/// Of all that the steps changed in the parameters, the part that differs.
double part_that_differs(const Taken& got, const Taken& expected) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < expected.after.size(); ++i) {
    const std::string& name = expected.after[i].first;
    if (!name.ends_with(".weight") && !name.ends_with(".bias")) {
      continue;
    }
    const Tensor wanted = expected.after[i].second - expected.before[i].second,
                 apart = got.after[i].second - expected.after[i].second;
    size += sum(wanted * wanted).item();
    difference += sum(apart * apart).item();
  }
  return std::sqrt(difference / size);
}

/// What `passes` move values by, forward or backward: in each of nine layers is a sum of up to 512 channels
/// of 3x3.
double moved_by(int passes, DType dtype) {
  constexpr int kTerms = 9 * 512 * 3 * 3;
  return test::rounded(dtype, passes * test::kStoredInAPass) + test::rounded(DType::f32, passes * kTerms);
}
/// Of a loss: it is the mean over 16 images, which round independently.
double loss_bound(DType dtype) { return moved_by(1, dtype) / std::sqrt(16); }

class EmulatedModels : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(, EmulatedModels, testing::Values("lenet5", "resnet9", "airbench94"),
                         [](const auto& model) { return std::string(model.param); });

TEST_P(EmulatedModels, StepAsTheCpuDoesWithOneHashOnAnyNumberOfGpus) {
  fake_nccl::install();
  const Taken cpu = take(GetParam(), {kCpu}, DType::f32, 3);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    if (is_left_to_trials(GetParam(), dtype)) {
      continue;
    }
    SCOPED_TRACE(name_of(dtype));
    const Taken one = take(GetParam(), gpus(1), dtype, 3);
    const double differs = part_that_differs(one, cpu);
    RecordProperty(std::string(name_of(dtype)), std::to_string(differs));
    EXPECT_LT(differs, test::step_bound(moved_by(3 * 2, dtype)));
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_NEAR(one.losses[i], cpu.losses[i], loss_bound(dtype) * cpu.losses[i]) << "step " << i;
    }
    for (const int count : {2, 4}) {
      EXPECT_EQ(take(GetParam(), gpus(count), dtype, 3).hash, one.hash) << count << " GPUs";
    }
  }
  EXPECT_THAT(fake_nccl::misuses(), IsEmpty());
}

/// Both round to 9 bits at the same places, but sum in other orders: steps drift apart, slowly.
TEST(EmulatedLearning, Lenet5InBf16IsAsOnTheCpu) {
  if (!cpu::has_bf16()) {
    GTEST_SKIP() << "this processor has no bf16";
  }
  const Taken cpu = take("lenet5", {kCpu}, DType::bf16, 20), gpu = take("lenet5", gpus(1), DType::bf16, 20);
  EXPECT_LT(cpu.losses.back(), cpu.losses.front());
  for (std::size_t i = 0; i < cpu.losses.size(); ++i) {
    EXPECT_NEAR(gpu.losses[i], cpu.losses[i], loss_bound(DType::bf16) * cpu.losses[i]) << "step " << i;
  }
}

}  // namespace
}  // namespace millrace
