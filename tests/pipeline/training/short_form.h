#pragma once

#include <cstdlib>
#include <string_view>

#include "tensor/dtype.h"

namespace millrace {

/// Emulated steps of large networks take minutes: without MILLRACE_LONG=1, as scripts/trials/emulated-steps
/// sets it, those in bf16 stand for the other types.
inline bool is_left_to_trials(std::string_view model, DType dtype) {
  return std::getenv("MILLRACE_LONG") == nullptr && model != "lenet5" && dtype != DType::bf16;
}

}  // namespace millrace
