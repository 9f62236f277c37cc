#pragma once

#include <string>

#include "base/error.h"

namespace millrace::test {

/// The message of the InputError that `action` throws, or words that say that it threw none.
template <typename Action>
std::string input_error(Action&& action) {
  try {
    action();
  } catch (const InputError& error) {
    return error.what();
  }
  return "(no error)";
}

}  // namespace millrace::test
