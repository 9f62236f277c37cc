#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <initializer_list>

#include "pipeline/training/checkpoint.h"

namespace millrace::app {

/// The files that a training writes beside its checkpoints: `--log-json`, `--trace`, `--save`.
struct OutputChoice {
  std::filesystem::path log_json, save, trace;

  void add_to(CLI::App& command);
  /// @throws InputError when one cannot be written, or two are the same file.
  void check() const;
};

/// Tries each, whatever becomes of the others. @throws the first failure, once all were tried; further ones
/// are told of.
void write_all(std::initializer_list<std::function<void()>> writes, const Say& say);

}  // namespace millrace::app
