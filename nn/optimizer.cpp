#include "nn/optimizer.h"

#include <algorithm>

#include "tensor/training_kernels.h"

namespace millrace::nn {

namespace {

void check(const SgdOptions& options) {
  if (!(options.learning_rate >= 0) || !(options.momentum >= 0) || !(options.weight_decay >= 0)) {
    throw InputError(
        "Sgd: got learning_rate = {}, momentum = {}, weight_decay = {}, expected numbers from 0 up",
        options.learning_rate, options.momentum, options.weight_decay);
  }
  if (options.nesterov && options.momentum == 0) {
    throw InputError("Sgd: nesterov needs a momentum above 0, got 0");
  }
}

}  // namespace

Sgd::Sgd(FlatParameters& flat, SgdOptions options)
    : flat_(&flat),
      options_(flat.slots().size(), options),
      momentum_(zeros(flat.weights().shape(), {.device = flat.weights().device()})) {
  check(options);
  make_runs();
}

Sgd::Sgd(Module& module, SgdOptions options)
    : Sgd(std::make_unique<FlatParameters>(module, Statistics::immediate), options) {}

Sgd::Sgd(std::unique_ptr<FlatParameters> flat, SgdOptions options) : Sgd(*flat, options) {
  owned_ = std::move(flat);
}

Sgd::~Sgd() = default;

void Sgd::group(std::string_view word, SgdOptions options) {
  check(options);
  const auto& slots = flat_->slots();
  bool found = false;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].name.find(word) == std::string::npos) {
      continue;
    }
    options_[i] = options;
    found = true;
  }
  if (!found) {
    throw InputError(
        "Sgd: no trainable parameter has \"{}\" in its name; the first is \"{}\", the last \"{}\"", word,
        slots.back().name, slots.front().name);
  }
  make_runs();
}

void Sgd::make_runs() {
  const auto& slots = flat_->slots();
  runs_.clear();
  for (std::size_t first = 0, last = 0; first < slots.size(); first = last) {
    while (last < slots.size() && options_[last] == options_[first]) {
      ++last;
    }
    const std::int64_t begin = slots[first].offset;
    const std::int64_t end = last < slots.size() ? slots[last].offset : flat_->weights().numel();
    runs_.push_back({options_[first], begin, end});
  }
}

StateDict Sgd::momentum_dict() const {
  StateDict state;
  for (const auto& slot : flat_->slots()) {
    state.emplace_back(slot.name,
                       momentum_.narrow(0, slot.offset, slot.size).view(slot.parameter.data().shape()));
  }
  return state;
}

std::string Sgd::describe() const {
  const auto& slots = flat_->slots();
  std::string text;
  for (std::size_t first = 0, last = 0; first < slots.size(); first = last) {
    while (last < slots.size() && options_[last] == options_[first]) {
      ++last;
    }
    const SgdOptions& o = options_[first];
    const bool all = first == 0 && last == slots.size();
    text += fmt::format("{}learning rate {}, momentum {}, weight decay {}{}{}", first == 0 ? "" : "; ",
                        o.learning_rate, o.momentum, o.weight_decay, o.nesterov ? ", nesterov" : "",
                        all ? "" : fmt::format(" of {} to {}", slots[first].name, slots[last - 1].name));
  }
  return text;
}

void Sgd::zero_grad() { flat_->begin(); }

void Sgd::step(double rate, double gradient_scale, const Tensor& control) {
  // A trainer completes the gradients before it sums them; what it summed must not be taken for empty here.
  if (owned_) {
    flat_->finish();
  }
  step_part(0, flat_->weights().numel(), rate, gradient_scale, control);
}

void Sgd::step_part(std::int64_t begin, std::int64_t end, double rate, double gradient_scale,
                    const Tensor& control) {
  for (const Run& run : runs_) {
    const std::int64_t first = std::max(begin, run.begin), last = std::min(end, run.end);
    if (first >= last) {
      continue;
    }
    const auto part = [&](const Tensor& buffer) { return buffer.narrow(0, first, last - first); };
    Tensor weights = part(flat_->weights()), momentum = part(momentum_);
    // Momentum starts at zero, so that the first step needs no case of its own, nor does a resumed one.
    const SgdStep step{.learning_rate = static_cast<float>(run.options.learning_rate * rate),
                       .momentum = static_cast<float>(run.options.momentum),
                       .weight_decay = static_cast<float>(run.options.weight_decay),
                       .gradient_scale = static_cast<float>(gradient_scale),
                       .nesterov = run.options.nesterov,
                       .first = false};
    const Tensor gradients = part(flat_->gradients());
    if (control.defined()) {
      MILLRACE_LAUNCH(weights.device(), sgd_step_if, control, weights, gradients, momentum, step);
    } else {
      MILLRACE_LAUNCH(weights.device(), sgd_step, weights, gradients, momentum, step);
    }
  }
  for (const auto& slot : flat_->slots()) {
    if (slot.offset < end && slot.offset + slot.size > begin) {
      slot.parameter.data().storage()->bump_version();
    }
  }
  if (end >= flat_->weights().numel()) {
    ++steps_;
  }
}

}  // namespace millrace::nn
