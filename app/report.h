#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "app/output/json_log.h"
#include "app/output/progress.h"
#include "pipeline/training/trainer.h"

namespace millrace::app {

/// Tells how a training goes: lines on the terminal, a bar while an epoch runs, and JSON events in the log.
class Report {
 public:
  Report(JsonLog& log, double epochs, std::int64_t steps_per_epoch, std::int64_t log_every);

  /// What the recipe does before the first step is done.
  void initialized();
  /// `step` batches of the epoch were taken before this run.
  void begin_epoch(std::int64_t epoch, std::int64_t step);
  /// Counts a step once its loss is there, which a GPU may give later: in order, and by the end of the epoch.
  /// @throws InputError when a loss is no longer finite.
  void step(StepResult result);
  /// Prints the mean loss and speed of the epoch's steps in this run, and, where GPUs compute, how long they
  /// waited; `idle_seconds` counts over all epochs.
  void end_epoch(std::optional<double> idle_seconds = {});
  /// One sentence on standard error, and an event in the log.
  void say(const std::string& sentence);
  /// `augmented`: with test-time augmentation.
  void evaluated(const Evaluation& evaluation, double seconds, bool augmented);
  /// `loader`'s counters go into the log, its verdict is printed as well.
  void finish(const std::string& weights_hash, const LoaderStatistics& loader);

 private:
  using Clock = std::chrono::steady_clock;
  struct Sum {
    double loss = 0;
    std::int64_t images = 0;
    void add(const StepResult& result) { loss += result.loss, images += result.valid; }
    double mean() const { return images > 0 ? loss / static_cast<double>(images) : 0; }
  };

  void count(const StepResult& result);

  JsonLog& log_;
  std::deque<StepResult> pending_;
  double epochs_;
  std::int64_t steps_per_epoch_, log_every_;
  std::int64_t epoch_ = 0, step_ = 0, first_step_ = 0;  // steps count within the epoch
  std::int64_t images_ = 0;
  double training_seconds_ = 0;  // without evaluation
  double idle_seconds_ = 0;      // at the end of the last epoch
  Sum recent_, whole_;           // since the last printed line, since the epoch's start
  std::optional<double> accuracy_, augmented_accuracy_;
  std::unique_ptr<Progress> progress_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point epoch_start_ = start_;
};

}  // namespace millrace::app
