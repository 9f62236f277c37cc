// What a steady training step launches and copies, and that it waits for nothing and needs no more memory.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include "emulator.h"
#include "nn/models/models.h"
#include "tests/pipeline/training/short_form.h"
#include "tests/pipeline/training/small_net.h"

namespace millrace {
namespace {

/// Launches of the third step, by file and kernel. Without what convolutions launch for the sake of cuDNN,
/// which is biases, their gradients, and weights in its types and order.
struct Row {
  const char* model;
  const char* launches;
};

constexpr Row kRows[] = {
    {"lenet5",
     "cross_entropy: backward 1, cross_entropy: forward 1, fill: map_strided 1, max_pool: backward 2, "
     "max_pool: forward 2, optimizer_steps: step_packs 1, pixels: normalize 1, unary: map_flat 8"},
    {"resnet9",
     "batch_norm: apply 16, batch_norm: block_moments 8, batch_norm: block_sums 8, batch_norm: "
     "finish_moments 8, batch_norm: finish_sums 8, batch_norm: gradient 8, binary: map_flat 86, binary: "
     "map_strided 48, cross_entropy: backward 1, cross_entropy: forward 1, fill: map_flat 1, fill: "
     "map_strided 1, max_pool: backward 4, max_pool: forward 4, optimizer_steps: step_packs 1, pixels: "
     "normalize 1, unary: map_flat 16"},
    {"airbench94",
     "batch_norm: apply 12, batch_norm: block_moments 6, batch_norm: block_sums 6, batch_norm: "
     "finish_moments 6, batch_norm: finish_sums 6, batch_norm: gradient 6, binary: map_flat 62, binary: "
     "map_strided 36, cross_entropy: backward 1, cross_entropy: forward 1, fill: map_flat 1, fill: "
     "map_strided 1, max_pool: backward 4, max_pool: forward 4, optimizer_steps: step_packs 1, pixels: "
     "normalize 1, unary: map_flat 14"},
};
/// In f16 as well.
constexpr const char* kLossScale =
    "loss_scale: decide 1, loss_scale: find_not_finite 1, loss_scale: zero_unless_applied 1";

/// One slab goes to the GPU (16 images of 3 * 32 * 32 bytes, labels and what describes them), the loss comes
/// back.
constexpr std::int64_t kHostBytes = 49672;

struct Step {
  emulator::Counts counts;
  std::map<std::string, std::int64_t> launches;
};

Step now() { return {emulator::counts(), emulator::launches()}; }

std::string describe_launches(const Step& before, const Step& after, bool of_loss_scale) {
  std::string text;
  for (const auto& [kernel, times] : after.launches) {
    const auto found = before.launches.find(kernel);
    const std::int64_t more = times - (found == before.launches.end() ? 0 : found->second);
    const bool of_convolutions =
        kernel.starts_with("copy: ") || kernel.starts_with("conv2d_bias: ") || kernel.starts_with("reduce: ");
    if (more > 0 && !of_convolutions && kernel.starts_with("loss_scale: ") == of_loss_scale) {
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", kernel, more);
    }
  }
  return text;
}

class EmulatedSteps : public testing::TestWithParam<std::tuple<Row, DType>> {};

TEST_P(EmulatedSteps, LaunchAndCopyWhatTheTableSays) {
  const auto& [row, dtype] = GetParam();
  if (is_left_to_trials(row.model, dtype)) {
    GTEST_SKIP() << "takes long: scripts/trials/emulated-steps";
  }
  Loader loader(open_dataset("synthetic:16"),
                {.batch_size = 16, .dtype = DType::u8, .shards = 1, .threads = 1});
  Batch batch;
  auto epoch = loader.epoch(0);
  ASSERT_TRUE(loader.next(batch));
  Trainer trainer{[model = row.model] { return nn::make_model(model); },
                  kSgd,
                  {.replicas = 1, .shards = 1, .devices = {{Device::Kind::cuda, 0}}, .dtype = dtype}};
  std::vector<StepResult> results;
  Step before, after;
  for (int i = 0; i < 3; ++i) {
    before = now();
    results.push_back(trainer.step(batch, sum_of_losses));
    after = now();
  }
  const emulator::Counts &from = before.counts, &to = after.counts;
  EXPECT_EQ(to.synchronizations, from.synchronizations);
  EXPECT_EQ(to.growths, from.growths) << "memory from the driver";
  EXPECT_EQ(to.pinned, from.pinned);
  EXPECT_EQ(to.streams, from.streams);
  EXPECT_EQ(to.loads, from.loads) << "kernels";
  EXPECT_EQ(to.host_to_device - from.host_to_device, 1);
  EXPECT_EQ(to.device_to_host - from.device_to_host, 1);
  EXPECT_EQ(to.host_bytes - from.host_bytes, kHostBytes);
  EXPECT_EQ(describe_launches(before, after, false), row.launches);
  EXPECT_EQ(describe_launches(before, after, true), dtype == DType::f16 ? kLossScale : "");
}

INSTANTIATE_TEST_SUITE_P(Emulated, EmulatedSteps,
                         testing::Combine(testing::ValuesIn(kRows),
                                          testing::Values(DType::f32, DType::bf16, DType::f16)),
                         [](const auto& info) {
                           return fmt::format("{}_{}", std::get<0>(info.param).model,
                                              name_of(std::get<1>(info.param)));
                         });

}  // namespace
}  // namespace millrace
