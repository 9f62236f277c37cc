#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "nn/optimizers/adam.h"
#include "nn/optimizers/muon.h"
#include "nn/optimizers/rms_prop.h"
#include "nn/optimizers/sgd.h"

namespace millrace::nn {

/// The kinds of optimizers. What is not in this list is refused.
using OptimizerOptions = std::variant<SgdOptions, AdamOptions, AdamWOptions, RmsPropOptions, MuonOptions>;

/// One of each kind, as their structs are by default.
const std::vector<OptimizerOptions>& optimizer_kinds();
/// The kind of that name, "AdamW" or "adamw", as its struct is by default.
/// @throws InputError that lists the kinds.
OptimizerOptions find_optimizer(std::string_view kind);

/// @throws InputError naming the values that are out of range.
void check(const OptimizerOptions& options);
/// "Adam, learning rate 0.001, first beta 0.9, ..."
std::string describe(const OptimizerOptions& options);

}  // namespace millrace::nn
