#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipeline/training/run_description.h"

namespace millrace {

class FileDescriptor;

/// All that a training run goes on from. Says nothing of replicas, threads, slabs or ranks: any number of
/// them goes on with the same bits.
struct Checkpoint {
  TrainerState trainer;
  LoaderState loader;
  RunDescription run;
  std::map<std::string, std::string> metadata = {};  ///< Of the weights' file, as `save_model` writes it.
};

/// Writes `folder`/step-000000123 with weights.safetensors, optimizer.safetensors, average.safetensors where
/// there is one, and state.pb, and returns its path. Written beside and renamed when all of it is on disk; a
/// failure or a kill leaves what was there.
/// @throws MachineError naming the path and the reason.
std::filesystem::path save_checkpoint(const std::filesystem::path& folder, const Checkpoint& checkpoint);
/// @throws InputError naming the file that is missing, cut or changed.
Checkpoint load_checkpoint(const std::filesystem::path& path);

/// The checkpoints in a folder, whole or not, by step; none when there is no such folder.
std::vector<std::filesystem::path> checkpoints_in(const std::filesystem::path& folder);

using Say = std::function<void(const std::string& sentence)>;

struct FoundCheckpoint {
  std::filesystem::path path;
  Checkpoint checkpoint;
};
/// `place`'s newest checkpoint that is whole, or `place` itself where that is one; nothing when there is
/// none. Newer ones that are damaged are named.
std::optional<FoundCheckpoint> newest_checkpoint(const std::filesystem::path& place, const Say& say);

/// Trainer and loader go on from a checkpoint; `run` describes them. A difference of machines or versions is
/// said, as bits may then differ from those of an undisturbed run.
/// @throws InputError naming both values of each option that differs.
void resume(const Checkpoint& from, const RunDescription& run, Trainer& trainer, Loader& loader,
            const Say& say);

/// How often a checkpoint is written; the one that is not 0 counts.
struct CheckpointInterval {
  std::int64_t steps = 0, epochs = 0;
  double seconds = 0;

  /// Reads "30s", "500steps" or "1epoch". @throws InputError that lists them.
  static CheckpointInterval parse(std::string_view text);
};

struct CheckpointerOptions {
  std::filesystem::path folder;  ///< Made where it is not there. One run at a time may write into it.
  CheckpointInterval every = {.seconds = 600};
  int keep = 3;        ///< Older ones are removed, once a newer one is on disk.
  RunDescription run;  ///< From describe_run.
  std::map<std::string, std::string> metadata = {};
  Say say = {};  ///< Told, by the thread that trains, of one that could not be written; else standard error.
};

/// Writes checkpoints of a run in the background. In the loop over batches, behind the trainer's step:
///
///     checkpointer.after_step(trainer, loader);
///
/// Training is held up by the copy of weights and optimizer state alone. One copy exists at a time: a
/// checkpoint that is due while the one before is still being written is taken at the first step after that.
/// One that cannot be written is reported and left out, and the last good one stays.
class Checkpointer {
 public:
  /// Removes what a killed run left half written.
  /// @throws InputError when the folder cannot be written, or another run writes into it.
  explicit Checkpointer(CheckpointerOptions options);
  /// Waits for the one being written.
  ~Checkpointer();
  Checkpointer(const Checkpointer&) = delete;
  Checkpointer& operator=(const Checkpointer&) = delete;

  void after_step(const Trainer& trainer, const Loader& loader);
  /// Writes one now, unless this step has one already, and returns its path once it is on disk.
  /// @throws MachineError when it cannot be written.
  std::filesystem::path save(const Trainer& trainer, const Loader& loader);

 private:
  bool is_due(const Trainer& trainer, const Loader& loader) const;
  void begin(const Trainer& trainer, const Loader& loader);
  void say_failed(const char* reason) const;
  void end();

  CheckpointerOptions options_;
  std::unique_ptr<FileDescriptor> lock_;
  bool due_ = false;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  std::filesystem::path newest_;  // that is on disk, of this run
  std::int64_t newest_step_ = -1, writing_step_ = -1;
  std::future<std::filesystem::path> writing_;  // last: its destructor waits
};

}  // namespace millrace
