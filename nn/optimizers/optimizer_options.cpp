#include "nn/optimizers/optimizer_options.h"

#include <algorithm>
#include <cctype>
#include <fmt/format.h>

#include "base/error.h"
#include "nn/optimizers/kind.h"

namespace millrace::nn {

namespace {

template <typename... Kinds>
std::vector<OptimizerOptions> defaults_of(const std::variant<Kinds...>& /*list*/) {
  return {Kinds()...};
}

bool same_name(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

}  // namespace

const std::vector<OptimizerOptions>& optimizer_kinds() {
  static const std::vector<OptimizerOptions> kinds = defaults_of(OptimizerOptions());
  return kinds;
}

OptimizerOptions find_optimizer(std::string_view kind) {
  std::string names;
  for (const OptimizerOptions& each : optimizer_kinds()) {
    const std::string_view name = optimizer_facts(each).kind;
    if (same_name(kind, name)) {
      return each;
    }
    names += fmt::format("{}{}", names.empty() ? "" : ", ", name);
  }
  throw InputError("optimizer: got the kind '{}', expected one of {}; choose one of these", kind, names);
}

OptimizerFacts optimizer_facts(const OptimizerOptions& options) {
  return std::visit([](const auto& o) { return facts_of(o); }, options);
}

void check(const OptimizerOptions& options) {
  const OptimizerFacts facts = optimizer_facts(options);
  for (const auto& [name, value, below_one] : facts.numbers) {
    if (!(value >= 0) || (below_one && !(value < 1))) {
      throw InputError("{}: got a {} of {}, expected a number from 0 up{}", facts.kind, name, value,
                       below_one ? " and below 1" : "");
    }
  }
  if (!facts.fault.empty()) {
    throw InputError("{}: {}", facts.kind, facts.fault);
  }
}

std::string describe(const OptimizerOptions& options) {
  const OptimizerFacts facts = optimizer_facts(options);
  std::string text(facts.kind);
  for (const auto& number : facts.numbers) {
    text += fmt::format(", {} {}", number.name, number.value);
  }
  for (const std::string_view on : facts.switches) {
    text += fmt::format(", {}", on);
  }
  return text;
}

}  // namespace millrace::nn
