#include "cudnn_engines.h"

#include <algorithm>
#include <atomic>
#include <fmt/format.h>

#include "fake_cudnn.h"
#include "memory.h"

namespace millrace::fake_cudnn {
namespace {

const std::vector<Engine> kEngines = {
    {0, CUDNN_HEUR_MODE_A, {}, {}, 4096, true},
    {1, CUDNN_HEUR_MODE_A, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, {}, 512, true},
    {2, CUDNN_HEUR_MODE_A, {CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION}, {}, 0, true},
    {3,
     CUDNN_HEUR_MODE_A,
     {CUDNN_NUMERICAL_NOTE_TENSOR_CORE},
     {CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION},
     0,
     true},
    {4, CUDNN_HEUR_MODE_B, {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, {}, 1 << 16, false},
    {5, CUDNN_HEUR_MODE_B, {CUDNN_NUMERICAL_NOTE_WINOGRAD}, {}, 0, true},
    {6, CUDNN_HEUR_MODE_FALLBACK, {}, {}, 1024, false},
    {7, CUDNN_HEUR_MODE_FALLBACK, {}, {}, std::int64_t{1} << 40, true},  // more than there is
};
/// The knob that all of them have; engine 1 is named with both of its values.
constexpr auto kKnob = CUDNN_KNOB_TYPE_SPLIT_K;
constexpr std::int64_t kKnobValues = 2;

struct State {
  std::atomic<bool> all_named = false;
  std::atomic<int> refusals = 0;
};
State& state() {
  static State state;
  return state;
}

const Engine* find_engine(std::int64_t index) {
  const auto found = std::ranges::find(kEngines, index, &Engine::index);
  return found == kEngines.end() ? nullptr : &*found;
}

[[noreturn]] void refuse(std::string reason) { throw Refusal{CUDNN_STATUS_NOT_SUPPORTED, std::move(reason)}; }

std::string problem_of(const Descriptor& graph) {
  const fakes::Convolution c = convolution_of(graph);
  std::string text = fmt::format("{}", static_cast<int>(c.result));
  for (const auto* tensor : {&c.x, &c.weight, &c.y}) {
    text += fmt::format(" {} {}", static_cast<int>(tensor->type), fmt::join(tensor->sizes, "x"));
  }
  return text;
}

/// By the seed, about a third of what is asked. One engine that every arithmetic allows is always kept.
bool is_refused(const Descriptor& graph, std::int64_t engine, const char* what) {
  const std::uint64_t seed = fakes::refusing_seed();
  if (seed == 0) {
    return false;
  }
  const std::string problem = problem_of(graph);
  const std::int64_t kept = fakes::draw(seed, problem) % 2 == 0 ? 0 : 6;
  const bool refused =
      engine != kept && fakes::draw(seed, fmt::format("{} {} {}", what, engine, problem)) % 3 == 0;
  state().refusals += refused ? 1 : 0;
  return refused;
}

/// All three tensors in one type, sums in f32: cuDNN 9.19 has no other engines for what we ask.
void check_graph(const Descriptor& graph) {
  const fakes::Convolution c = convolution_of(graph);
  if (c.x.type != c.weight.type || c.x.type != c.y.type) {
    refuse("no engine convolves tensors of several types");
  }
  for (const auto& [id, alignment] : operands_of(graph)) {
    if (std::ranges::count(operands_of(graph), id, &Operand::id) != 1) {
      refuse("two tensors have one id");
    }
  }
}

Shared engine_descriptor(const Shared& graph, const Engine& engine) {
  auto made = std::make_shared<Descriptor>(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  made->put(CUDNN_ATTR_ENGINE_OPERATION_GRAPH, graph);
  made->put<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, {engine.index});
  finalize_engines(*made);
  made->finalized = true;
  return made;
}

Shared config_descriptor(const Shared& graph, const Engine& engine, std::int64_t knob) {
  auto choice = std::make_shared<Descriptor>(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
  choice->put<cudnnBackendKnobType_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, {kKnob});
  choice->put<std::int64_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, {knob});
  choice->finalized = true;
  auto made = std::make_shared<Descriptor>(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  made->put(CUDNN_ATTR_ENGINECFG_ENGINE, engine_descriptor(graph, engine));
  made->put(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, choice);
  finalize_engines(*made);
  made->finalized = true;
  return made;
}

void finalize_heuristics(Descriptor& heuristics) {
  check_graph(*heuristics.graph);
  const auto mode = heuristics.one<cudnnBackendHeurMode_t>(CUDNN_ATTR_ENGINEHEUR_MODE);
  const bool all = state().all_named || fakes::refusing_seed() != 0;
  Value results{CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, {}, {}};
  for (const Engine& engine : kEngines) {
    if (engine.named_by == mode && (all || engine.always_named)) {
      results.descriptors.push_back(config_descriptor(heuristics.graph, engine, 0));
      if (all && engine.index == 1) {
        results.descriptors.push_back(config_descriptor(heuristics.graph, engine, 1));
      }
    }
  }
  results.count = static_cast<std::int64_t>(results.descriptors.size());
  heuristics.values[CUDNN_ATTR_ENGINEHEUR_RESULTS] = std::move(results);
}

void finalize_engine(Descriptor& engine) {
  const Engine* const found = find_engine(engine.one<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX));
  if (found == nullptr) {
    refuse("there is no such engine");
  }
  check_graph(*engine.graph);
  engine.put(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, found->numerical);
  engine.put(CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, found->behavior);
}

void finalize_config(Descriptor& config) {
  if (config.has(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES)) {
    for (const Shared& choice : config.values.at(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES).descriptors) {
      const auto value = choice->one<std::int64_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE);
      if (choice->one<cudnnBackendKnobType_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE) != kKnob || value < 0 ||
          value >= kKnobValues) {
        refuse("the engine has no such knob, or not that value");
      }
    }
  }
  const auto index =
      config.child(CUDNN_ATTR_ENGINECFG_ENGINE)->one<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
  config.put<std::int64_t>(CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                           {find_engine(index)->workspace});
  config.put<std::int32_t>(CUDNN_ATTR_ENGINECFG_SHARED_MEMORY_USED, CUDNN_TYPE_INT32, {0});
}

void finalize_plan(Descriptor& plan) {
  const std::int64_t index = engine_of(plan);
  if (is_refused(*plan.graph, index, "plan")) {
    refuse("the engine is refused by the seed");
  }
  plan.put<std::int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                         {find_engine(index)->workspace});
}

}  // namespace

void name_all_engines(bool all) { state().all_named = all; }
int refusals() { return state().refusals; }

void finalize_engines(Descriptor& descriptor) {
  switch (descriptor.type) {
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
      descriptor.graph = descriptor.child(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
      return descriptor.real == nullptr ? finalize_heuristics(descriptor) : void();
    case CUDNN_BACKEND_ENGINE_DESCRIPTOR:
      descriptor.graph = descriptor.child(CUDNN_ATTR_ENGINE_OPERATION_GRAPH);
      return descriptor.real == nullptr ? finalize_engine(descriptor) : void();
    case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR:
      descriptor.graph = descriptor.child(CUDNN_ATTR_ENGINECFG_ENGINE)->graph;
      return descriptor.real == nullptr ? finalize_config(descriptor) : void();
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
      descriptor.graph = descriptor.child(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->graph;
      return descriptor.real == nullptr ? finalize_plan(descriptor) : void();
    default:
      return;
  }
}

std::int64_t engine_of(const Descriptor& plan) {
  return plan.child(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)
      ->child(CUDNN_ATTR_ENGINECFG_ENGINE)
      ->one<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
}

bool refuses_to_run(const Descriptor& plan) {
  return plan.real == nullptr && is_refused(*plan.graph, engine_of(plan), "run");
}

fakes::Kept kept_by(const Descriptor& plan) {
  const Engine* const engine = plan.real == nullptr ? find_engine(engine_of(plan)) : nullptr;
  const bool on_tensor_cores =
      engine != nullptr &&
      std::ranges::find(engine->numerical, CUDNN_NUMERICAL_NOTE_TENSOR_CORE) != engine->numerical.end();
  return on_tensor_cores ? fakes::Kept::tf32 : fakes::Kept::all;
}

}  // namespace millrace::fake_cudnn
