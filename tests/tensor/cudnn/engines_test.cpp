#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <set>
#include <string_view>
#include <vector>

#include "tensor/cuda/conv/plan.h"
#ifdef MILLRACE_FAKE_CUDNN
#include "fake_cudnn.h"
#endif

namespace millrace::cuda {
namespace {

/// GPUs in cuDNN's words: so engines are found and plans are made without one.
constexpr std::string_view kH100 = R"({
  "deviceName": "NVIDIA H100 80GB HBM3", "deviceVer": 900, "driverVer": 13000, "cudaDeviceId": 0,
  "pciDeviceId": 9008, "isTccDriver": 0, "supportCoopLaunch": 1, "multiProcessorCount": 132, "warpSize": 32,
  "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536,
  "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448,
  "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536, "maxCtasPerSM": 32,
  "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "totalGlobalMem": 85024112640,
  "smClockRateKHz": 1980000, "memClockRateKHz": 2619000, "l2CacheSize": 52428800})";
constexpr std::string_view kH200 = R"({
  "deviceName": "NVIDIA H200", "deviceVer": 900, "driverVer": 13000, "cudaDeviceId": 0,
  "pciDeviceId": 9013, "isTccDriver": 0, "supportCoopLaunch": 1, "multiProcessorCount": 132, "warpSize": 32,
  "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536,
  "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448,
  "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536, "maxCtasPerSM": 32,
  "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "totalGlobalMem": 150754820096,
  "smClockRateKHz": 1980000, "memClockRateKHz": 3201000, "l2CacheSize": 62914560})";

/// cuDNN itself answers: also where the rest of it is a fake.
class CudnnEngines : public testing::Test {
#ifdef MILLRACE_FAKE_CUDNN
 protected:
  void SetUp() override {
    if (!fake_cudnn::pass_on(kH100)) {
      GTEST_SKIP() << "no cuDNN 9 is installed";
    }
  }
  void TearDown() override { fake_cudnn::pass_on(""); }
#endif
};

struct Layer {
  const char* name;
  Shape x, weight;
  Conv2dOptions params = {};
};

std::vector<Layer> layers_of_models() {
  const Conv2dOptions same{.padding = 1};
  const Conv2dOptions half{.stride = 2, .padding = 1};
  return {
      {"lenet5 conv1, 28 x 28", {128, 1, 32, 32}, {6, 1, 5, 5}},
      {"lenet5 conv1", {128, 3, 32, 32}, {6, 3, 5, 5}},
      {"lenet5 conv2", {128, 6, 14, 14}, {16, 6, 5, 5}},
      {"resnet20 stem", {128, 3, 32, 32}, {16, 3, 3, 3}, same},
      {"resnet20 layer1", {128, 16, 32, 32}, {16, 16, 3, 3}, same},
      {"resnet20 layer2 first", {128, 16, 32, 32}, {32, 16, 3, 3}, half},
      {"resnet20 layer2", {128, 32, 16, 16}, {32, 32, 3, 3}, same},
      {"resnet20 layer3 first", {128, 32, 16, 16}, {64, 32, 3, 3}, half},
      {"resnet20 layer3", {128, 64, 8, 8}, {64, 64, 3, 3}, same},
      {"resnet18 downsample", {128, 64, 32, 32}, {128, 64, 1, 1}, {.stride = 2}},
      {"resnet9 prep", {512, 3, 32, 32}, {64, 3, 3, 3}, same},
      {"resnet9 layer1", {512, 64, 32, 32}, {128, 64, 3, 3}, same},
      {"resnet9 res1", {512, 128, 16, 16}, {128, 128, 3, 3}, same},
      {"resnet9 layer2", {512, 128, 16, 16}, {256, 128, 3, 3}, same},
      {"resnet9 layer3", {512, 256, 8, 8}, {512, 256, 3, 3}, same},
      {"resnet9 res2", {512, 512, 4, 4}, {512, 512, 3, 3}, same},
      {"airbench94 whiten", {1024, 3, 32, 32}, {24, 3, 2, 2}},
      {"airbench94 group1 c1", {1024, 24, 31, 31}, {64, 24, 3, 3}, same},
      {"airbench94 group1 c2", {1024, 64, 15, 15}, {64, 64, 3, 3}, same},
      {"airbench94 group2 c1", {1024, 64, 15, 15}, {256, 64, 3, 3}, same},
      {"airbench94 group2 c2", {1024, 256, 7, 7}, {256, 256, 3, 3}, same},
      {"airbench94 group3 c1", {1024, 256, 7, 7}, {256, 256, 3, 3}, same},
      {"airbench94 group3 c2", {1024, 256, 3, 3}, {256, 256, 3, 3}, same},
      {"one image, odd sizes", {1, 5, 7, 11}, {3, 5, 3, 2}, {.stride = {2, 1}, .padding = {0, 1}}},
      {"groups", {8, 12, 9, 9}, {18, 4, 3, 3}, {.padding = 1, .groups = 3}},
      {"one group a channel", {8, 32, 9, 9}, {32, 1, 3, 3}, {.padding = 1, .groups = 32}},
      {"dilation", {8, 16, 19, 19}, {8, 16, 3, 3}, {.padding = {2, 4}, .dilation = {2, 3}}},
      {"all of it", {4, 6, 21, 17}, {4, 3, 3, 2}, {{2, 3}, {1, 2}, {2, 1}, 2}},
  };
}

Convolution convolution_of(const Layer& layer, Direction direction, DType dtype, GpuArithmetic arithmetic) {
  const auto size = [](std::int64_t x, std::int64_t w, std::int64_t stride, std::int64_t padding,
                       std::int64_t d) { return (x + 2 * padding - (w - 1) * d - 1) / stride + 1; };
  const Conv2dOptions& p = layer.params;
  const Shape out{layer.x[0], layer.weight[0],
                  size(layer.x[2], layer.weight[2], p.stride.height, p.padding.height, p.dilation.height),
                  size(layer.x[3], layer.weight[3], p.stride.width, p.padding.width, p.dilation.width)};
  return {.direction = direction,
          .dtype = dtype,
          .x = layer.x,
          .weight = layer.weight,
          .out = out,
          .params = p,
          .arithmetic = arithmetic};
}

constexpr std::array kDirections = {Direction::forward, Direction::backward_data, Direction::backward_weight};

/// Layers of the record network at other batches: of the recipe with muon, and of evaluation's pieces.
std::vector<Layer> layers_of_airbench94(std::int64_t batch) {
  std::vector<Layer> found;
  for (Layer layer : layers_of_models()) {
    if (std::string_view(layer.name).starts_with("airbench94")) {
      layer.x[0] = batch;
      found.push_back(layer);
    }
  }
  return found;
}

/// A plan is found, and found again by its choice.
void expect_plan(const Convolution& convolution, std::string_view device) {
  SCOPED_TRACE(convolution.to_string());
  const ConvolutionGraph graph(convolution, cudnn::device_properties(device));
  const auto plans = graph.candidates(4);
  ASSERT_FALSE(plans.empty());
  const auto again = graph.plan_of(plans.front().choice());
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->workspace_bytes(), plans.front().workspace_bytes());
}

constexpr std::array kArithmetics = {GpuArithmetic{}, GpuArithmetic{.tf32 = true, .deterministic = true}};

/// What the library itself says without a device is what makes this a test of our graphs.
TEST_F(CudnnEngines, every_layer_finds_one_and_finds_it_again) {
  for (const Layer& layer : layers_of_models()) {
    for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
      for (const Direction direction : kDirections) {
        for (const GpuArithmetic arithmetic : kArithmetics) {
          SCOPED_TRACE(layer.name);
          expect_plan(convolution_of(layer, direction, dtype, arithmetic), kH100);
        }
      }
    }
  }
}

TEST_F(CudnnEngines, so_do_larger_batches_and_evaluation_on_an_h200) {
  for (const std::int64_t batch : {1024, 2000, 64, 16}) {
    for (const Layer& layer : layers_of_airbench94(batch)) {
      for (const Direction direction : kDirections) {
        if (batch >= 1024 || direction == Direction::forward) {
          for (const GpuArithmetic arithmetic : kArithmetics) {
            SCOPED_TRACE(layer.name);
            expect_plan(convolution_of(layer, direction, DType::bf16, arithmetic), kH200);
          }
        }
      }
    }
  }
}

/// Engines that heuristics of all modes name, each once.
struct EngineCounts {
  std::size_t all = 0, deterministic = 0, precompiled = 0, both = 0;
};

EngineCounts count_engines(const ConvolutionGraph& graph, std::string_view device) {
  const cudnn::Descriptor properties = cudnn::device_properties(device);
  std::set<std::int64_t> known;
  EngineCounts counts;
  for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B, CUDNN_HEUR_MODE_FALLBACK}) {
    cudnn::Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph.descriptor());
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, {mode});
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, properties);
    heuristics.finalize();
    for (const cudnn::Descriptor& config :
         heuristics.get_all(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, 100)) {
      const auto engine = config.get_all(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR, 1);
      if (!known.insert(engine[0].get<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX)).second) {
        continue;
      }
      const auto numerical = engine[0].get_all<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                                                            CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
      const auto behavior = engine[0].get_all<cudnnBackendBehaviorNote_t>(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE,
                                                                          CUDNN_BEHAVIOR_NOTE_TYPE_COUNT);
      const bool deterministic = std::ranges::count(numerical, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) == 0;
      const bool precompiled = std::ranges::count(behavior, CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) == 0;
      ++counts.all;
      counts.deterministic += deterministic ? 1 : 0;
      counts.precompiled += precompiled ? 1 : 0;
      counts.both += deterministic && precompiled ? 1 : 0;
    }
  }
  return counts;
}

/// To be read: a layer with few engines that are both may be slow, or have none in the next cuDNN.
TEST_F(CudnnEngines, each_layer_has_deterministic_precompiled_ones) {
  for (const auto& [name, device] : {std::pair("H100", kH100), std::pair("H200", kH200)}) {
    for (const std::int64_t batch : {1024, 2000, 64}) {
      for (const Layer& layer : layers_of_airbench94(batch)) {
        for (const Direction direction : kDirections) {
          if (batch < 1024 && direction != Direction::forward) {
            continue;
          }
          const Convolution convolution = convolution_of(layer, direction, DType::bf16, {});
          const ConvolutionGraph graph(convolution, cudnn::device_properties(device));
          const EngineCounts counts = count_engines(graph, device);
          const std::string text = convolution.to_string();
          fmt::print(
              "{}, {} of {}, {}: {} engines, {} deterministic, {} precompiled, {} compiled at run time\n",
              name, layer.name, batch, text.substr(0, text.find(' ')), counts.all, counts.deterministic,
              counts.precompiled, counts.all - counts.precompiled);
          EXPECT_GE(counts.both, 1u) << convolution.to_string();
        }
      }
    }
  }
}

TEST_F(CudnnEngines, tensors_need_no_alignment) {
  const Layer layer{"", {8, 16, 9, 9}, {8, 16, 3, 3}, {}};
  for (const Direction direction : kDirections) {
    for (const DType dtype : {DType::bf16, DType::f32}) {
      Convolution convolution = convolution_of(layer, direction, dtype, {});
      convolution.alignment = static_cast<std::int64_t>(size_of(dtype));
      EXPECT_FALSE(ConvolutionGraph(convolution, cudnn::device_properties(kH100)).candidates(1).empty())
          << convolution.to_string();
    }
  }
}

TEST_F(CudnnEngines, what_arithmetic_forbids_is_not_found_again) {
  const Layer layer{"", {1024, 24, 31, 31}, {64, 24, 3, 3}, {.padding = 1}};
  const auto graph = [&](GpuArithmetic arithmetic) {
    return ConvolutionGraph(convolution_of(layer, Direction::backward_weight, DType::f32, arithmetic),
                            cudnn::device_properties(kH100));
  };
  const GpuArithmetic fast{.tf32 = true}, same_bits{.tf32 = true, .deterministic = true};
  std::size_t without_tf32 = 0, without_chance = 0;
  for (const ConvolutionPlan& plan : graph(fast).candidates(100)) {
    without_tf32 += graph({}).plan_of(plan.choice()).has_value() ? 0 : 1;
    without_chance += graph(same_bits).plan_of(plan.choice()).has_value() ? 0 : 1;
  }
  EXPECT_GT(without_tf32, 0u);
  EXPECT_GT(without_chance, 0u);
}

TEST_F(CudnnEngines, an_unknown_choice_gives_no_plan) {
  const Layer layer{"", {8, 16, 9, 9}, {8, 16, 3, 3}, {}};
  const ConvolutionGraph graph(convolution_of(layer, Direction::forward, DType::bf16, {}),
                               cudnn::device_properties(kH100));
  EXPECT_FALSE(graph.plan_of({.engine = 12345, .knobs = {}}).has_value());
  EXPECT_FALSE(graph.plan_of({.engine = 0, .knobs = {{CUDNN_KNOB_TYPE_TILE_SIZE, 1 << 20}}}).has_value());
}

}  // namespace
}  // namespace millrace::cuda
