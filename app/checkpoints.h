#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "pipeline/training/checkpoint.h"
#include "pipeline/training/model_file.h"

namespace millrace::app {

/// What becomes of a run that ends early: `--checkpoint`, `--checkpoint-every`, `--keep`, `--resume`.
struct CheckpointChoice {
  std::filesystem::path folder;
  std::string every = "600s", from;
  int keep = 3;

  void add_to(CLI::App& command);
  /// @throws InputError when the options do not fit each other or what lies in the folder.
  void check() const;
  bool resumes() const { return !from.empty(); }
  /// Null without `--checkpoint`. @throws InputError when the folder cannot be written.
  std::unique_ptr<Checkpointer> writer(const RunDescription& run, const ModelDescription& model,
                                       const Say& say) const;
  /// Trainer and loader go on as `--resume` asks for. Returns the checkpoint's path; "" for a new run.
  /// @throws InputError when there is none to go on from, or it is of a run with other options.
  std::filesystem::path resume(const RunDescription& run, Trainer& trainer, Loader& loader,
                               const Say& say) const;
};

}  // namespace millrace::app
