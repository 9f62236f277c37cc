#include "nn/optimizers/optimizer.h"

#include <algorithm>
#include <set>

#include "nn/optimizers/flat_part.h"
#include "nn/optimizers/kind.h"
#include "tensor/ops.h"

namespace millrace::nn {

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
    const std::vector<std::string> names = optimizer_facts(groups_[group_of_[first]].options).state;
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
      const FlatPart part{*flat_, buffers_, from, to, rate, step, frozen[first]};
      std::visit([&](const auto& options) { update(options, part); }, group.options);
    }
  }
}

StateDict Optimizer::state_dict() const {
  StateDict state;
  for (std::size_t i = 0; i < group_of_.size(); ++i) {
    const auto& slot = flat_->slots()[i];
    const std::vector<std::string> names = optimizer_facts(groups_[group_of_[i]].options).state;
    for (const std::string& name : names) {
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
