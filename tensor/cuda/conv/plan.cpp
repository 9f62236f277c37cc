#include "tensor/cuda/conv/plan.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>

namespace millrace::cuda {

using cudnn::Descriptor;

namespace {

constexpr std::int64_t kXId = 1, kWeightId = 2, kOutId = 3;
constexpr std::int64_t kLargestWorkspace = std::int64_t{512} << 20;
constexpr std::size_t kMostOfOneEngine = 3;

/// `shape` is N, C, H, W (or O, I, H, W), stored with C last.
Descriptor tensor(const Convolution& c, std::int64_t id, const Shape& shape) {
  const std::int64_t channels = shape[1], height = shape[2], width = shape[3];
  Descriptor made(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  made.set(CUDNN_ATTR_TENSOR_DATA_TYPE, {cudnn::data_type(c.dtype)});
  made.set(CUDNN_ATTR_TENSOR_DIMENSIONS, {shape[0], channels, height, width});
  made.set(CUDNN_ATTR_TENSOR_STRIDES,
           {channels * height * width, std::int64_t{1}, channels * width, channels});
  made.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, {id});
  made.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, {c.alignment});
  made.finalize();
  return made;
}

Descriptor window(const Conv2dOptions& params) {
  const auto set = [&](Descriptor& made, cudnnBackendAttributeName_t name, Size2 size) {
    made.set(name, {size.height, size.width});
  };
  Descriptor made(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  made.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, {CUDNN_DATA_FLOAT});
  made.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, {CUDNN_CROSS_CORRELATION});
  made.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, {std::int64_t{2}});
  set(made, CUDNN_ATTR_CONVOLUTION_DILATIONS, params.dilation);
  set(made, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, params.stride);
  set(made, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, params.padding);
  set(made, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, params.padding);
  made.finalize();
  return made;
}

/// cuDNN names the attributes of the three directions apart.
struct OperationNames {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t alpha, beta, window, weight, x, out;
};

OperationNames names_of(Direction direction) {
  switch (direction) {
    case Direction::forward:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y};
    case Direction::backward_data:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY};
    case Direction::backward_weight:
      break;
  }
  return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY};
}

Descriptor graph_of(const Convolution& c) {
  const OperationNames names = names_of(c.direction);
  Descriptor operation(names.type);
  operation.set(names.alpha, {1.0f});
  operation.set(names.beta, {0.0f});
  operation.set(names.window, window(c.params));
  operation.set(names.weight, tensor(c, kWeightId, c.weight));
  operation.set(names.x, tensor(c, kXId, c.x));
  operation.set(names.out, tensor(c, kOutId, c.out));
  operation.finalize();
  Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
  graph.finalize();
  return graph;
}

/// What heuristics propose; nothing where they have no answer, which cuDNN may call an error.
std::vector<Descriptor> configs_of(const Descriptor& graph, const Descriptor& device,
                                   cudnnBackendHeurMode_t mode) {
  constexpr std::int64_t kMostConfigs = 100;
  try {
    Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, {mode});
    heuristics.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device);
    heuristics.finalize();
    return heuristics.get_all(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
                              kMostConfigs);
  } catch (const cudnn::Failure&) {
    return {};
  }
}

Descriptor engine_of(const Descriptor& config) {
  std::vector<Descriptor> engine =
      config.get_all(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR, 1);
  return std::move(engine.at(0));
}

EngineChoice choice_of(const Descriptor& config, const Descriptor& engine) {
  EngineChoice choice{.engine = engine.get<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX), .knobs = {}};
  for (const Descriptor& knob : config.get_all(
           CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, CUDNN_KNOB_TYPE_COUNTS)) {
    choice.knobs.emplace_back(knob.get<cudnnBackendKnobType_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE),
                              knob.get<std::int64_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE));
  }
  return choice;
}

/// Such engines take seconds for each plan, in each process anew.
bool compiles_at_run_time(const Descriptor& engine) {
  const auto notes = engine.get_all<cudnnBackendBehaviorNote_t>(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE,
                                                                CUDNN_BEHAVIOR_NOTE_TYPE_COUNT);
  return std::ranges::find(notes, CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) != notes.end();
}

}  // namespace

std::string Convolution::to_string() const {
  constexpr std::array kNames = {"conv2d_forward", "conv2d_backward_data", "conv2d_backward_weight"};
  const Conv2dOptions& p = params;
  return fmt::format(
      "{} {} x {} weight {} out {} stride {}x{} padding {}x{} dilation {}x{} groups {} aligned {}{}{}",
      kNames.at(static_cast<std::size_t>(direction)), dtype, x, weight, out, p.stride.height, p.stride.width,
      p.padding.height, p.padding.width, p.dilation.height, p.dilation.width, p.groups, alignment,
      arithmetic.tf32 ? " tf32" : "", arithmetic.deterministic ? " deterministic" : "");
}

ConvolutionPlan::ConvolutionPlan(Descriptor plan, EngineChoice choice)
    : plan_(std::move(plan)),
      choice_(std::move(choice)),
      workspace_bytes_(plan_.get<std::int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)) {}

void ConvolutionPlan::run(cudnnHandle_t handle, void* x, void* weight, void* out, void* workspace) const {
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, {kXId, kWeightId, kOutId});
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, {x, weight, out});
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, {workspace});
  pack.finalize();
  cudnn::check(cudnnBackendExecute(handle, plan_.get(), pack.get()));
}

ConvolutionGraph::ConvolutionGraph(const Convolution& convolution, Descriptor device_properties)
    : dtype_(convolution.dtype),
      arithmetic_(convolution.arithmetic),
      device_(std::move(device_properties)),
      graph_(graph_of(convolution)) {}

bool ConvolutionGraph::allows(const Descriptor& engine) const {
  const auto notes = engine.get_all<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
  return std::ranges::none_of(notes, [&](cudnnBackendNumericalNote_t note) {
    switch (note) {
      case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
        return arithmetic_.deterministic;
      case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:  // in f32 these multiply TF32 numbers
      case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
        return dtype_ == DType::f32 && !arithmetic_.tf32;
      case CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP:
        return false;
      default:  // sums in 16 bits, Fourier and Winograd transforms: less exact than sums of products in f32
        return true;
    }
  });
}

std::optional<ConvolutionPlan> ConvolutionGraph::finish(const Descriptor& config, EngineChoice choice) const {
  try {
    Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, device_);
    plan.finalize();
    ConvolutionPlan made(std::move(plan), std::move(choice));
    return made.workspace_bytes() > kLargestWorkspace ? std::nullopt : std::optional(std::move(made));
  } catch (const cudnn::Failure&) {  // this engine does not run here
    return std::nullopt;
  }
}

std::vector<ConvolutionPlan> ConvolutionGraph::candidates(std::size_t most) const {
  std::vector<ConvolutionPlan> plans;
  std::map<std::int64_t, std::size_t> of_engine;
  for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B, CUDNN_HEUR_MODE_FALLBACK}) {
    if (plans.size() >= most) {
      break;
    }
    for (const Descriptor& config : configs_of(graph_, device_, mode)) {
      const Descriptor engine = engine_of(config);
      EngineChoice choice = choice_of(config, engine);
      const bool is_known = std::ranges::find(plans, choice, &ConvolutionPlan::choice) != plans.end();
      if (plans.size() >= most || is_known || of_engine[choice.engine] >= kMostOfOneEngine ||
          !allows(engine) || compiles_at_run_time(engine)) {
        continue;
      }
      if (auto plan = finish(config, std::move(choice))) {
        ++of_engine[plan->choice().engine];
        plans.push_back(std::move(*plan));
      }
    }
  }
  return plans;
}

std::optional<ConvolutionPlan> ConvolutionGraph::plan_of(const EngineChoice& choice) const {
  try {
    Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    engine.set(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph_);
    engine.set(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, {choice.engine});
    engine.set(CUDNN_ATTR_ENGINE_DEVICEPROP, device_);
    engine.finalize();
    if (!allows(engine)) {
      return std::nullopt;
    }
    std::vector<Descriptor> knobs;
    for (const auto& [kind, value] : choice.knobs) {
      Descriptor& knob = knobs.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
      knob.set(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, {static_cast<cudnnBackendKnobType_t>(kind)});
      knob.set(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, {value});
      knob.finalize();
    }
    Descriptor config(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    config.set(CUDNN_ATTR_ENGINECFG_ENGINE, engine);
    if (!knobs.empty()) {
      config.set(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, knobs);
    }
    config.finalize();
    return finish(config, choice);
  } catch (const cudnn::Failure&) {
    return std::nullopt;
  }
}

}  // namespace millrace::cuda
