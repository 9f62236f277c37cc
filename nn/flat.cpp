#include "nn/flat.h"

#include <algorithm>

namespace millrace::nn {

namespace {

/// The next place that starts on 64 bytes.
constexpr std::int64_t aligned(std::int64_t floats) { return (floats + 15) / 16 * 16; }

/// Appends a network's trainable parameters and the others; returns how many elements the former take.
std::int64_t lay_out(const Module& module, std::vector<FlatParameters::Slot>& slots,
                     std::vector<std::pair<std::string, Variable>>& frozen) {
  auto parameters = module.named_parameters();
  std::reverse(parameters.begin(), parameters.end());
  std::int64_t size = 0;
  for (auto& [name, parameter] : parameters) {
    if (!parameter.requires_grad()) {
      frozen.emplace_back(name, parameter);
      continue;
    }
    if (parameter.dtype() != DType::f32) {
      throw InputError("FlatParameters: parameter {} is {}, expected f32", name, parameter.dtype());
    }
    const std::int64_t count = parameter.data().numel();
    slots.push_back({parameter, name, size, count});
    size = aligned(size + count);
  }
  if (slots.empty()) {
    throw InputError("FlatParameters: {} has no trainable parameters", module.kind());
  }
  return size;
}

}  // namespace

FlatParameters::FlatParameters(Module& module, Statistics statistics, const Allocate& allocate) {
  const std::int64_t size = lay_out(module, slots_, frozen_);
  std::int64_t end = size;
  for (Module* part : module.modules()) {
    if (part->statistics_size() == 0) {
      continue;
    }
    part->collect_statistics({});
    if (statistics == Statistics::immediate) {
      continue;
    }
    with_statistics_.push_back(part);
    end = aligned(end + part->statistics_size());
  }

  const TensorOptions options{.device = slots_.front().parameter.device()};
  weights_ = zeros({size}, options);
  gradients_ = allocate ? allocate(end, options) : empty({end}, options);
  gradients_.zero_();
  statistics_ = gradients_.narrow(0, size, end - size);
  for (Slot& slot : slots_) {
    const Shape shape = slot.parameter.shape();
    Tensor weight = weights_.narrow(0, slot.offset, slot.size).view(shape).with_own_version();
    weight.copy_(slot.parameter.data());
    slot.parameter.data() = weight;
    slot.parameter.bind_grad(gradients_.narrow(0, slot.offset, slot.size).view(shape).with_own_version());
  }
  std::int64_t place = 0;
  for (Module* part : with_statistics_) {
    part->collect_statistics(statistics_.narrow(0, place, part->statistics_size()));
    place = aligned(place + part->statistics_size());
  }
}

void FlatParameters::check_trainable() const {
  for (const auto& [name, parameter] : frozen_) {
    if (parameter.requires_grad()) {
      throw InputError(
          "optimizer: parameter {} was frozen when the optimizer was made and is trainable now; make it with "
          "the parameter trainable, and freeze that afterwards for as long as it is to stay",
          name);
    }
  }
}

void FlatParameters::begin() {
  for (Slot& slot : slots_) {
    slot.parameter.zero_grad();
  }
  if (!with_statistics_.empty()) {
    statistics_.zero_();
  }
}

void FlatParameters::finish() {
  // Reading a gradient that is marked as empty writes its zeros.
  for (const Slot& slot : slots_) {
    slot.parameter.grad();
  }
}

void FlatParameters::apply_statistics(std::int64_t valid) {
  if (valid == 0) {
    return;
  }
  for (Module* part : with_statistics_) {
    part->apply_statistics();
  }
}

}  // namespace millrace::nn
