#pragma once

#include <fmt/core.h>
#include <stdexcept>
#include <string>
#include <utility>

namespace millrace {

/// The base of everything Millrace throws. A message says what was got, what was expected, what to do.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The caller or the data is wrong: a shape, an option, a damaged file. Exit code 2.
class InputError : public Error {
 public:
  template <typename... Args>
  explicit InputError(fmt::format_string<Args...> format, Args&&... args)
      : Error(fmt::format(format, std::forward<Args>(args)...)) {}
};

/// The machine failed: memory, disk, device. Exit code 1.
class MachineError : public Error {
 public:
  template <typename... Args>
  explicit MachineError(fmt::format_string<Args...> format, Args&&... args)
      : Error(fmt::format(format, std::forward<Args>(args)...)) {}
};

/// A device has no memory left for what was asked; what needs less may still run.
class OutOfMemory : public MachineError {
 public:
  using MachineError::MachineError;
};

/// A peer failed, aborted or stayed away for the timeout. Exit code 3.
class CommunicatorError : public Error {
 public:
  template <typename... Args>
  explicit CommunicatorError(fmt::format_string<Args...> format, Args&&... args)
      : Error(fmt::format(format, std::forward<Args>(args)...)) {}
};

}  // namespace millrace
