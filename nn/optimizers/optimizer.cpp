#include "nn/optimizers/optimizer.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "nn/optimizers/muon.h"
#include "tensor/kernels/training_kernels.h"
#include "tensor/ops.h"

namespace millrace::nn {

namespace {

using Buffers = std::map<std::string, Tensor>;

/// Elements [begin, end) of the flat buffers, which are to be updated now.
struct Part {
  FlatParameters& flat;
  const Buffers& buffers;
  std::int64_t begin, end;
  double rate;  // of the schedule
  const OptimizerStep& step;
  std::int64_t frozen_steps;  // of its parameters

  Tensor of(const Tensor& buffer) const { return buffer.narrow(0, begin, end - begin); }
  /// Undefined where the options need no such buffer.
  Tensor state(const char* name) const {
    const auto found = buffers.find(name);
    return found == buffers.end() ? Tensor() : of(found->second);
  }
  GradientStep gradient(double weight_decay) const {
    return {.gradient_scale = static_cast<float>(step.gradient_scale),
            .weight_decay = static_cast<float>(weight_decay),
            .control = step.control.data<float>()};
  }
};

// Averages and momentums start at zero, so that neither a first step nor a resumed one needs a case of its
// own.

void update(const SgdOptions& options, const Part& part) {
  Tensor weights = part.of(part.flat.weights()), momentum = part.state("momentum_buffer");
  const SgdStep step{.gradient = part.gradient(options.weight_decay),
                     .learning_rate = static_cast<float>(options.learning_rate * part.rate),
                     .momentum = static_cast<float>(options.momentum),
                     .nesterov = options.nesterov};
  MILLRACE_LAUNCH(weights.device(), sgd_step, weights, part.of(part.flat.gradients()), momentum, step);
}

/// Both of Adam's; `shrink` is what a weight is multiplied with.
template <typename AdamLike>
void update_adam(const AdamLike& options, double weight_decay, double shrink, const Part& part) {
  Tensor weights = part.of(part.flat.weights()), exp_avg = part.state("exp_avg"),
         exp_avg_sq = part.state("exp_avg_sq");
  const auto taken = static_cast<double>(part.step.number + 1 - part.frozen_steps);
  const auto missing = [&](double beta) { return 1 - std::pow(beta, taken); };  // to a whole average
  const AdamStep step{
      .gradient = part.gradient(weight_decay),
      .learning_rate = static_cast<float>(options.learning_rate * part.rate / missing(options.betas[0])),
      .rate1 = static_cast<float>(1 - options.betas[0]),
      .rate2 = static_cast<float>(1 - options.betas[1]),
      .eps = static_cast<float>(options.eps),
      .correction = static_cast<float>(1 / std::sqrt(missing(options.betas[1]))),
      .shrink = static_cast<float>(shrink)};
  MILLRACE_LAUNCH(weights.device(), adam_step, weights, part.of(part.flat.gradients()), exp_avg, exp_avg_sq,
                  step);
}

void update(const AdamOptions& options, const Part& part) {
  update_adam(options, options.weight_decay, 1, part);
}

void update(const AdamWOptions& options, const Part& part) {
  update_adam(options, 0, 1 - options.learning_rate * part.rate * options.weight_decay, part);
}

void update(const RmsPropOptions& options, const Part& part) {
  Tensor weights = part.of(part.flat.weights()), square_avg = part.state("square_avg"),
         grad_avg = part.state("grad_avg"), momentum = part.state("momentum_buffer");
  const RmsPropStep step{.gradient = part.gradient(options.weight_decay),
                         .learning_rate = static_cast<float>(options.learning_rate * part.rate),
                         .rate = static_cast<float>(1 - options.alpha),
                         .eps = static_cast<float>(options.eps),
                         .momentum = static_cast<float>(options.momentum),
                         .centered = options.centered};
  MILLRACE_LAUNCH(weights.device(), rms_prop_step, weights, part.of(part.flat.gradients()), square_avg,
                  grad_avg, momentum, step);
}

/// What Muon's momentum asks for: SGD's step with a rate of -1, from zero. Zero when the step is skipped.
Tensor direction(const MuonOptions& options, const Part& part) {
  Tensor from_zero = zeros({part.end - part.begin}, {.device = part.flat.weights().device()}),
         momentum = part.state("momentum_buffer");
  const SgdStep step{.gradient = part.gradient(0),
                     .learning_rate = -1,
                     .momentum = static_cast<float>(options.momentum),
                     .nesterov = options.nesterov};
  MILLRACE_LAUNCH(from_zero.device(), sgd_step, from_zero, part.of(part.flat.gradients()), momentum, step);
  return from_zero;
}

/// Steps one whole parameter.
void update_slot(const MuonOptions& options, const FlatParameters::Slot& slot, const Part& part) {
  const Shape& shape = slot.parameter.shape();
  if (shape.size() < 2) {
    throw InputError("Muon: {} is {}, expected filters or matrices; give it to another optimizer with group",
                     slot.name, shape);
  }
  const Tensor wanted = direction(options, part).view({shape[0], -1});
  const double rate = options.learning_rate * part.rate;
  if (rate == 0) {
    return;
  }
  Tensor weights = part.of(part.flat.weights()).view(wanted.shape());
  if (options.normalize_weights) {
    Tensor factor = std::sqrt(static_cast<double>(shape[0])) / frobenius_norm(weights);
    if (part.step.control.defined()) {  // 1 when the step is skipped
      const Tensor apply = part.step.control.select(0, 0);
      factor = factor * apply + (1 - apply);
    }
    weights.mul_(factor);
  }
  weights.add_(orthogonalized(wanted, options.newton_schulz_steps), -rate);
}

/// Steps the parameters whose end lies in the part.
void update(const MuonOptions& options, const Part& part) {
  for (const auto& slot : part.flat.slots()) {
    const std::int64_t end = slot.offset + slot.size;
    if (part.begin < end && end <= part.end) {
      update_slot(options, slot,
                  {part.flat, part.buffers, slot.offset, end, part.rate, part.step, part.frozen_steps});
    }
  }
}

}  // namespace

Optimizer::Optimizer(FlatParameters& flat, const OptimizerOptions& options, Schedule schedule)
    : flat_(&flat),
      groups_{{options, std::move(schedule)}},
      group_of_(flat.slots().size()),
      frozen_steps_(zeros({std::ssize(flat.slots())}, {.dtype = DType::i64})) {
  check(options);
  arrange();
}

Optimizer::Optimizer(Module& module, const OptimizerOptions& options, Schedule schedule)
    : Optimizer(std::make_unique<FlatParameters>(module, Statistics::immediate), options,
                std::move(schedule)) {}

Optimizer::Optimizer(std::unique_ptr<FlatParameters> flat, const OptimizerOptions& options, Schedule schedule)
    : Optimizer(*flat, options, std::move(schedule)) {
  owned_ = std::move(flat);
}

Optimizer::~Optimizer() = default;

void Optimizer::group(std::string_view word, const OptimizerOptions& options, Schedule schedule) {
  check(options);
  const auto& slots = flat_->slots();
  bool found = false;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].name.find(word) != std::string::npos) {
      group_of_[i] = groups_.size();
      found = true;
    }
  }
  if (!found) {
    throw InputError(
        "optimizer: no trainable parameter has \"{}\" in its name; the first is \"{}\", the last \"{}\"",
        word, slots.back().name, slots.front().name);
  }
  groups_.push_back({options, std::move(schedule)});
  arrange();
}

/// Makes the runs, and the buffers that they need.
void Optimizer::arrange() {
  const auto& slots = flat_->slots();
  const Tensor& weights = flat_->weights();
  std::set<std::string> needed;
  runs_.clear();
  for (std::size_t first = 0, last = 0; first < slots.size(); first = last) {
    while (last < slots.size() && group_of_[last] == group_of_[first]) {
      ++last;
    }
    const std::int64_t end = last < slots.size() ? slots[last].offset : weights.numel();
    runs_.push_back({group_of_[first], first, last, slots[first].offset, end});
    const std::vector<std::string> names = state_names(groups_[group_of_[first]].options);
    needed.insert(names.begin(), names.end());
  }
  std::erase_if(buffers_, [&](const auto& buffer) { return !needed.contains(buffer.first); });
  for (const std::string& name : needed) {
    if (!buffers_.contains(name)) {
      buffers_[name] = zeros(weights.shape(), {.device = weights.device()});
    }
  }
}

/// Of a run, what lies in [begin, end) and is not frozen, in as few pieces as that takes.
void Optimizer::step_run(const Run& run, std::int64_t begin, std::int64_t end, const OptimizerStep& step) {
  const auto& slots = flat_->slots();
  const Group& group = groups_[run.group];
  const Schedule& schedule = group.schedule ? group.schedule : groups_[0].schedule;
  const double rate = schedule ? schedule(step.number) : 1;
  auto* const frozen = frozen_steps_.data<std::int64_t>();
  for (std::size_t first = run.first, last = first; first < run.last; first = last) {
    if (!slots[first].parameter.requires_grad()) {
      const std::int64_t slot_end = slots[first].offset + slots[first].size;
      frozen[last++] += begin < slot_end && slot_end <= end ? 1 : 0;
      continue;
    }
    for (; last < run.last && slots[last].parameter.requires_grad() && frozen[last] == frozen[first];
         ++last) {
      if (slots[last].offset < end && slots[last].offset + slots[last].size > begin) {
        slots[last].parameter.data().storage()->bump_version();
      }
    }
    const std::int64_t from = std::max(begin, slots[first].offset),
                       to = std::min(end, last < run.last ? slots[last].offset : run.end);
    if (from < to) {
      const Part part{*flat_, buffers_, from, to, rate, step, frozen[first]};
      std::visit([&](const auto& options) { update(options, part); }, group.options);
    }
  }
}

StateDict Optimizer::state_dict() const {
  StateDict state;
  for (std::size_t i = 0; i < group_of_.size(); ++i) {
    const auto& slot = flat_->slots()[i];
    for (const std::string& name : state_names(groups_[group_of_[i]].options)) {
      state.emplace_back(
          slot.name + "." + name,
          buffers_.at(name).narrow(0, slot.offset, slot.size).view(slot.parameter.data().shape()));
    }
  }
  state.emplace_back("step", steps_);
  state.emplace_back("frozen_steps", frozen_steps_);
  return state;
}

StateDict Optimizer::completed(StateDict state) const {
  if (std::ranges::find(state, "frozen_steps", &StateDict::value_type::first) == state.end()) {
    state.emplace_back("frozen_steps", zeros(frozen_steps_.shape(), {.dtype = DType::i64}));
  }
  return state;
}

void Optimizer::load_state_dict(const StateDict& state) {
  copy_by_name(state_dict(), completed(state), "optimizer: this state does not fit");
}

std::string Optimizer::describe() const {
  const auto& slots = flat_->slots();
  std::string text;
  for (const Run& run : runs_) {
    const Group& group = groups_[run.group];
    text += (text.empty() ? "" : "; ") + nn::describe(group.options);
    if (run.group > 0 && group.schedule) {
      text += ", schedule of its own";
    }
    if (runs_.size() > 1) {
      text += fmt::format(" of {} to {}", slots[run.first].name, slots[run.last - 1].name);
    }
  }
  return text;
}

void Optimizer::zero_grad() {
  flat_->check_trainable();
  flat_->begin();
}

void Optimizer::step(const OptimizerStep& step) {
  // A trainer completes the gradients before it sums them; what it summed must not be taken for empty here.
  if (owned_) {
    flat_->check_trainable();
    flat_->finish();
  }
  step_part(0, flat_->weights().numel(), step);
}

void Optimizer::step_part(std::int64_t begin, std::int64_t end, const OptimizerStep& step) {
  for (const Run& run : runs_) {
    if (std::max(begin, run.begin) < std::min(end, run.end)) {
      step_run(run, begin, end, step);
    }
  }
  if (end >= flat_->weights().numel()) {
    *steps_.data<std::int64_t>() = step.number + 1;
  }
}

}  // namespace millrace::nn
