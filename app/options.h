#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "nn/optimizers/optimizer.h"
#include "pipeline/training/model_file.h"
#include "pipeline/training/trainer.h"

/// What several subcommands share: checks of numbers, the choice of device and type, the size of thread
/// pools.
namespace millrace::app {

/// Accepts whole numbers from `low` to `high`.
CLI::Validator whole_number(std::int64_t low, std::int64_t high = 1'000'000'000);
/// Accepts numbers of at least `low` and less than `high`.
CLI::Validator in_range(double low, double high);
/// Adds `--sum-order`.
void add_sum_order(CLI::App& command, SumOrder& sum_order, const std::string& description);

/// Where and how a command computes: `--device`, `--dtype`, `--replicas`, `--shards`, `--threads`,
/// `--sum-order`, `--replay`, `--tf32`.
struct ComputeOptions {
  std::string device = "cpu";
  std::string dtype = "f32";
  int replicas = 0;
  int shards = 0;
  int threads = 0;  ///< Loader workers.
  SumOrder sum_order = SumOrder::tree;
  bool replay = true;
  bool tf32 = false;

  void add_to(CLI::App& command, bool with_shards);
  /// Fills in what the machine decides. @throws InputError when the values do not fit each other or the
  /// machine.
  TrainerOptions resolve(std::int64_t batch_size, std::uint64_t seed,
                         std::shared_ptr<ProcessGroup> processes = nullptr) const;
};

/// What takes the place of a recipe's optimizer, `--optimizer`, and what is changed of it: `--lr`,
/// `--momentum`,
/// `--weight-decay`, `--nesterov`.
struct OptimizerChoice {
  std::optional<std::string> kind;
  std::optional<double> learning_rate, momentum, weight_decay;
  std::optional<bool> nesterov;

  void add_to(CLI::App& command);
  /// @throws InputError naming an option that this kind of optimizer lacks.
  void apply(nn::OptimizerOptions& options) const;
};

/// In which order the samples come: `--order`, `--block-size`, `--window`.
struct OrderChoice {
  std::string order = "shuffled";
  std::optional<std::int64_t> block_size, window;

  void add_to(CLI::App& command);
  /// @throws InputError for a size that this order has no use for.
  OrderOptions resolve() const;
};

/// What becomes of samples that cannot be read: `--bad-samples`, `--max-bad-rate`.
struct BadSampleChoice {
  std::string what = "fail";
  std::optional<double> max_rate;

  /// An evaluation counts each sample once: it has no substitutes.
  void add_to(CLI::App& command, bool with_substitutes = true);
  /// @throws InputError for a rate where the first bad sample ends the run.
  void apply(LoaderOptions& options) const;
  /// Of training: its evaluation masks what training substitutes.
  void apply_to_evaluation(LoaderOptions& options) const;
};

/// How samples come into memory: `--reading`, `--reader-threads`, `--verify`.
struct ReadingChoice {
  std::string reading = "map", verify = "first";
  std::optional<int> reader_threads;

  void add_to(CLI::App& command);
  Reading kind() const { return reading == "read" ? Reading::read : Reading::map; }
  OpenOptions open_options(bool train = true) const;
  /// As asked for; else 4 that read, and none that map.
  int threads() const { return reader_threads.value_or(kind() == Reading::read ? 4 : 0); }
};

/// Loader options to evaluate a described model on a data set: every sample once, in order.
LoaderOptions evaluation_loader(const ModelDescription& model, const TrainerOptions& trainer, int threads);
/// On GPUs, before their first training with this program: compares a step of the model with the CPU's.
/// @throws MachineError when they differ.
void check_first_training(const ModelDescription& model, const TrainerOptions& trainer);
/// @throws InputError when the loader's images or classes are not what the model takes.
void check_fits(const Loader& loader, const ModelDescription& model, std::string_view data);

/// "1 replica", "2 replicas"
std::string counted(std::int64_t count, std::string_view noun);
}  // namespace millrace::app
