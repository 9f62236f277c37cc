#include "nn/optimizers/optimizer_options.h"

#include <fmt/format.h>

#include "base/error.h"

namespace millrace::nn {

namespace {

/// Options by the names that messages and descriptions give them.
using Values = std::vector<std::pair<const char*, double>>;

Values values_of(const SgdOptions& o) {
  return {{"learning rate", o.learning_rate}, {"momentum", o.momentum}, {"weight decay", o.weight_decay}};
}
template <typename AdamLike>
Values values_of_adam(const AdamLike& o) {
  return {{"learning rate", o.learning_rate},
          {"first beta", o.betas[0]},
          {"second beta", o.betas[1]},
          {"eps", o.eps},
          {"weight decay", o.weight_decay}};
}
Values values_of(const AdamOptions& o) { return values_of_adam(o); }
Values values_of(const AdamWOptions& o) { return values_of_adam(o); }
Values values_of(const RmsPropOptions& o) {
  return {{"learning rate", o.learning_rate},
          {"alpha", o.alpha},
          {"eps", o.eps},
          {"momentum", o.momentum},
          {"weight decay", o.weight_decay}};
}
Values values_of(const MuonOptions& o) {
  return {{"learning rate", o.learning_rate},
          {"momentum", o.momentum},
          {"Newton-Schulz steps", o.newton_schulz_steps}};
}

std::string flags_of(const SgdOptions& o) { return o.nesterov ? ", nesterov" : ""; }
std::string flags_of(const AdamOptions& /*o*/) { return ""; }
std::string flags_of(const AdamWOptions& /*o*/) { return ""; }
std::string flags_of(const RmsPropOptions& o) { return o.centered ? ", centered" : ""; }
std::string flags_of(const MuonOptions& o) {
  return fmt::format("{}{}", o.nesterov ? ", nesterov" : "",
                     o.normalize_weights ? ", normalized weights" : "");
}

const char* name_of(const OptimizerOptions& options) {
  static constexpr std::array kNames = {"SGD", "Adam", "AdamW", "RMSProp", "Muon"};
  return kNames[options.index()];
}

Values values_of(const OptimizerOptions& options) {
  return std::visit([](const auto& o) { return values_of(o); }, options);
}

/// Whether it is the factor of an average, which is below 1.
bool is_average(std::string_view name) { return name.ends_with("beta") || name == "alpha"; }

}  // namespace

void check(const OptimizerOptions& options) {
  for (const auto& [name, value] : values_of(options)) {
    if (!(value >= 0) || (is_average(name) && !(value < 1))) {
      throw InputError("{}: got a {} of {}, expected a number from 0 up{}", name_of(options), name, value,
                       is_average(name) ? " and below 1" : "");
    }
  }
  const auto* sgd = std::get_if<SgdOptions>(&options);
  const auto* muon = std::get_if<MuonOptions>(&options);
  if ((sgd != nullptr && sgd->nesterov && sgd->momentum == 0) ||
      (muon != nullptr && muon->nesterov && muon->momentum == 0)) {
    throw InputError("{}: nesterov needs a momentum above 0, got 0", name_of(options));
  }
}

std::string describe(const OptimizerOptions& options) {
  std::string text = name_of(options);
  for (const auto& [name, value] : values_of(options)) {
    text += fmt::format(", {} {}", name, value);
  }
  return text + std::visit([](const auto& o) { return flags_of(o); }, options);
}

std::vector<std::string> state_names(const OptimizerOptions& options) {
  if (const auto* rms_prop = std::get_if<RmsPropOptions>(&options)) {
    std::vector<std::string> names = {"square_avg"};
    if (rms_prop->centered) {
      names.emplace_back("grad_avg");
    }
    if (rms_prop->momentum > 0) {
      names.emplace_back("momentum_buffer");
    }
    return names;
  }
  if (std::holds_alternative<AdamOptions>(options) || std::holds_alternative<AdamWOptions>(options)) {
    return {"exp_avg", "exp_avg_sq"};
  }
  return {"momentum_buffer"};
}

}  // namespace millrace::nn
